"""An image configuration as ``docker image inspect`` shows it."""

from __future__ import annotations

from forensics_lib.images.config import Healthcheck, ImageConfig

__all__ = ["inspect_config"]


def inspect_config(config: ImageConfig, *, legacy: bool) -> dict[str, object]:
    """The ``Config`` object that ``docker image inspect`` prints.

    Args:
        config: the image configuration.
        legacy: as daemons before 28.2 (API before 1.50) print it: every field of their container configuration, set
            or not. Otherwise as later ones do: only what is set, and nothing that belongs to containers.

    Returns:
        An empty dict where the document has no configuration object. Empty and missing arrays and objects are told
        apart as the daemon does (``[]`` and None).
    """
    raw = config.raw.object("config")
    if not isinstance(config.raw.get("config"), dict):
        return {}
    ports: dict[str, object] = {port: {} for port in config.exposed_ports}
    optional: dict[str, object] = {
        "ExposedPorts": ports,
        "ArgsEscaped": config.args_escaped,
        "StopSignal": config.stop_signal,
        "Shell": list(config.shell),
    }
    values: dict[str, object] = {
        "User": config.user,
        "Env": list(config.env),
        "Cmd": list(config.cmd),
        "Volumes": {path: {} for path in config.volumes},
        "WorkingDir": config.working_dir,
        "Entrypoint": list(config.entrypoint),
        "OnBuild": list(config.on_build),
        "Labels": dict(config.label_pairs),
    }
    answer: dict[str, object] = {}
    if config.healthcheck is not None:
        answer["Healthcheck"] = _inspect_healthcheck(config.healthcheck)
    if not legacy:
        return answer | {key: value for key, value in {**values, **optional}.items() if value}
    optional |= {"NetworkDisabled": config.network_disabled, "MacAddress": config.mac_address}
    if config.stop_timeout is not None:
        answer["StopTimeout"] = config.stop_timeout
    answer |= {
        "Hostname": config.hostname,
        "Domainname": config.domainname,
        "AttachStdin": config.attach_stdin,
        "AttachStdout": config.attach_stdout,
        "AttachStderr": config.attach_stderr,
        "Tty": config.tty,
        "OpenStdin": config.open_stdin,
        "StdinOnce": config.stdin_once,
        "Image": config.base_image,
    }
    for key, value in values.items():
        answer[key] = value if isinstance(value, str) or raw.get(key) is not None else None
    return answer | {key: value for key, value in optional.items() if value}


def _inspect_healthcheck(check: Healthcheck) -> dict[str, object]:
    values: dict[str, object] = {
        "Test": list(check.test),
        "Interval": check.interval_ns,
        "Timeout": check.timeout_ns,
        "StartPeriod": check.start_period_ns,
        "StartInterval": check.start_interval_ns,
        "Retries": check.retries,
    }
    return {key: value for key, value in values.items() if value}

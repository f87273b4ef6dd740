"""The files that were mounted into a container, as far as the evidence holds them."""

from __future__ import annotations

from forensics_lib.engines.docker.containers import ContainerRecord, mount_type
from forensics_lib.engines.docker.engine import DockerRoot
from forensics_lib.errors import PathNotFound
from forensics_lib.formats.jsondoc import JsonObject
from forensics_lib.trees.base import Tree
from forensics_lib.trees.subtree import Subtree

__all__ = ["host_tree", "mount_tree"]


def mount_tree(docker: DockerRoot, record: ContainerRecord, destination: str) -> Tree:
    """What a container saw at a mount point: a volume, a folder of the host, an image.

    Raises:
        PathNotFound: nothing was mounted there, or it is not in the evidence.
        UnsupportedFormat: a plugin kept the volume's files elsewhere.
    """
    wanted = destination.rstrip("/")
    points = record.config.object("MountPoints")
    for key in points.raw:
        point = points.object(key)
        if (point.text("Destination") or key).rstrip("/") == wanted:
            return _tree(docker, record, point)
    if any(mount.destination.rstrip("/") == wanted for mount in record.parts.mounts):
        raise PathNotFound(f"what was mounted at {destination} was kept in memory only")
    known = ", ".join(mount.destination for mount in record.parts.mounts) or "none"
    raise PathNotFound(f"nothing was mounted at {destination}; mount points: {known}")


def _tree(docker: DockerRoot, record: ContainerRecord, point: JsonObject) -> Tree:
    kind, name, specification = mount_type(point), point.text("Name"), point.object("Spec")
    match kind:
        case "bind":
            return host_tree(docker, point.text("Source"))
        case "volume":
            tree, options = _volume(docker, name), specification.object("VolumeOptions")
        case "image":
            tree, options = _image(docker, record, point), specification.object("ImageOptions")
        case _:
            raise PathNotFound(f"a mount of type {kind} has no files in the evidence")
    return Subtree(tree, options.text("Subpath")) if options.text("Subpath") else tree


def _volume(docker: DockerRoot, name: str) -> Tree:
    for volume in docker.volumes:
        if volume.name == name:
            options = dict(volume.options)
            if "bind" in options.get("o", "").split(","):  # a folder of the host under a volume's name
                return host_tree(docker, options.get("device", ""))
            return volume.tree()
    raise PathNotFound(f"volume {name} is not in the evidence")


def _image(docker: DockerRoot, record: ContainerRecord, point: JsonObject) -> Tree:
    driver = record.parts.storage_driver
    mount = docker.layer_db(driver).mounts.get(point.text("ID"))
    if mount is None:
        raise PathNotFound(f"the layer that image {point.text('Name')} was mounted by is not in the evidence")
    return docker.driver(driver).tree(mount.mount_id)


def host_tree(docker: DockerRoot, path: str) -> Tree:
    """A folder or file of the host by its path there; symbolic links are followed inside the evidence only.

    A data root may lie on a file system of its own: the host is then the one that has a folder for it.

    Raises:
        PathNotFound: the evidence does not reach it.
    """
    tree, root, real = docker.reader.tree, docker.root.path, docker.real_root
    if path == real or path.startswith(f"{real}/"):
        return Subtree(Subtree(tree, root), path.removeprefix(real) or "/", or_file=True)
    if root.endswith(real):
        host: Tree | None = Subtree(tree, root.removesuffix(real) or "/")
    else:
        host = next((one.tree for one in docker.hosts if one.tree is not tree and real in one.tree), None)
    if host is None:
        raise PathNotFound(f"{path} of the host is not in the evidence, which holds nothing but {real} of it")
    try:
        return Subtree(host, path, or_file=True)
    except PathNotFound as error:
        raise PathNotFound(f"{error} on the host, as far as it is in the evidence") from error

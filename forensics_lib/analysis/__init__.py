"""Questions over any evidence: digests, verification, identification, scanning, searching."""

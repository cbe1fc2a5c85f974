"""The software bill of materials: SPDX 2.3 in JSON, the same bytes for the same image.

Specification: SPDX 2.3, ISO/IEC 5962. Package URLs follow the purl specification; they name no host.
"""

import json
import re
import uuid
from datetime import UTC, datetime

from image.contents import Contents, Package

_NAMESPACE = uuid.UUID("5c0a9d8e-4c37-4f4e-9f0e-7a0d6f2b1c55")
_IMAGE = "SPDXRef-image"
# Licence texts of Debian packages are summed up in names that are not all SPDX's.
_EXPRESSION = re.compile(r"[A-Za-z0-9.+-]+(?: (?:AND|OR|WITH) [A-Za-z0-9.+-]+)*")


def encode(contents: Contents) -> bytes:
    """The document of an image."""
    packages = [_package(package) for package in contents.packages]
    document = {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": f"zeronode-{contents.arch}-{contents.name}",
        "documentNamespace": f"urn:uuid:{uuid.uuid5(_NAMESPACE, contents.build_id)}",
        "creationInfo": {
            "created": datetime.fromtimestamp(contents.epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "creators": [f"Tool: zeronode-image-{contents.version}"],
        },
        "packages": [_image(contents), *packages],
        "relationships": [
            _relation("SPDXRef-DOCUMENT", "DESCRIBES", _IMAGE),
            *(_relation(_IMAGE, "CONTAINS", package["SPDXID"]) for package in packages),
        ],
    }
    return json.dumps(document, indent=1, ensure_ascii=False).encode() + b"\n"


def _image(contents: Contents) -> dict[str, object]:
    return {
        "SPDXID": _IMAGE,
        "name": f"zeronode-{contents.arch}-{contents.name}",
        "versionInfo": f"{contents.version}+{contents.build_id}",
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": False,
        "licenseConcluded": "NOASSERTION",
        "licenseDeclared": "NOASSERTION",
        "copyrightText": "NOASSERTION",
        "primaryPackagePurpose": "OPERATING-SYSTEM",
    }


def _package(package: Package) -> dict[str, object]:
    spdx = package.kind != "deb" and _EXPRESSION.fullmatch(package.licence)
    return {
        "SPDXID": "SPDXRef-" + re.sub(r"[^A-Za-z0-9.-]", "-", f"{package.kind}-{package.name}"),
        "name": package.name,
        "versionInfo": package.version,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": False,
        "checksums": [{"algorithm": "SHA256", "checksumValue": package.sha256}],
        "licenseConcluded": "NOASSERTION",
        "licenseDeclared": package.licence if spdx else "NOASSERTION",
        "licenseComments": f"The package names: {package.licence or 'nothing machine-readable'}",
        "copyrightText": "NOASSERTION",
        "externalRefs": [
            {
                "referenceCategory": "PACKAGE-MANAGER",
                "referenceType": "purl",
                "referenceLocator": _purl(package),
            }
        ],
    }


def _purl(package: Package) -> str:
    version = package.version.replace(":", "%3A").replace("+", "%2B")
    if package.kind == "deb":
        return f"pkg:deb/debian/{package.name}@{version}?arch={package.arch}"
    if package.kind == "npm":
        return f"pkg:npm/{package.name.replace('@', '%40')}@{version}"
    return f"pkg:pypi/{package.name.lower().replace('_', '-')}@{version}"


def _relation(element: str, kind: str, related: object) -> dict[str, object]:
    return {"spdxElementId": element, "relationshipType": kind, "relatedSpdxElement": related}

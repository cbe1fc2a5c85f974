"""The routes of containers' images."""

import msgspec

from core0.api.daemon import Daemon, settle
from core0.api.routes import OPERATOR
from core0.api.streams import upload
from core0.wire.image_store import Collected, ImageDigest, ImageLoad, ImagePull, NodeImage, NodeImages
from core0.wire.operations import Operation
from corex.http import problem
from corex.http.routes import NoBody, NoParameters, Reply, Request, Route, Upload


class ByDigest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which image."""

    digest: ImageDigest


async def _images(request: Request[Daemon, NoParameters, NoBody]) -> NodeImages:
    return await request.context.call("images", NodeImages)


async def _image(request: Request[Daemon, ByDigest, NoBody]) -> NodeImage:
    return await request.context.call("image", NodeImage, body=request.parameters.digest)


async def _pull(request: Request[Daemon, NoParameters, ImagePull]) -> Reply[Operation]:
    operation = await request.context.call("pull_image", Operation, body=request.body)
    return Reply(operation, 202, {"Location": f"/v1/operations/{operation.id}"})


async def _load(request: Request[Daemon, ImageLoad, Upload]) -> NodeImage:
    reader, writer = await request.context.open("load_image", body=request.parameters)
    return msgspec.json.decode(settle(await upload(request.raw, reader, writer)), type=NodeImage)


async def _delete(request: Request[Daemon, ByDigest, NoBody]) -> Collected:
    return await request.context.call("delete_image", Collected, body=request.parameters.digest)


async def _collect(request: Request[Daemon, NoParameters, NoBody]) -> Collected:
    return await request.context.call("collect_images", Collected)


_IMAGE = "/v1/images/{digest}"

IMAGE_ROUTES = (
    Route("GET", "/v1/images", OPERATOR, "All images of containers", _images, response=NodeImages),
    Route(
        "GET",
        _IMAGE,
        OPERATOR,
        "One image",
        _image,
        parameters=ByDigest,
        response=NodeImage,
        errors=(problem.NOT_FOUND,),
    ),
    Route(
        "DELETE",
        _IMAGE,
        OPERATOR,
        "Remove an image that no container has, and the layers that no other image has",
        _delete,
        parameters=ByDigest,
        response=Collected,
        errors=(problem.NOT_FOUND, problem.CONFLICT),
    ),
    Route(
        "POST",
        "/v1/images/pull",
        OPERATOR,
        "Pull an image, also if one of that name is there",
        _pull,
        request=ImagePull,
        response=Operation,
        status=202,
        errors=(problem.CONFLICT,),
    ),
    Route(
        "POST",
        "/v1/images/load",
        OPERATOR,
        "Take an image that comes as a tar of an OCI layout",
        _load,
        parameters=ImageLoad,
        request=Upload,
        response=NodeImage,
        errors=(problem.CONFLICT, problem.UNAVAILABLE),
    ),
    Route(
        "POST",
        "/v1/images/gc",
        OPERATOR,
        "Remove every image that no container has",
        _collect,
        response=Collected,
        errors=(problem.CONFLICT,),
    ),
)

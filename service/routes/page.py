"""`GET /`: the page to try variants on. `GET /docs`: the API, to try it. Both work without the internet."""

from importlib.resources import files

from fastapi import APIRouter, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse
from starlette.exceptions import HTTPException

router = APIRouter(include_in_schema=False)

# A package that carries a Swagger UI new enough for OpenAPI 3.1; swagger-ui-bundle is not.
ASSETS = files("fastapi_offline") / "static"
ASSET_TYPES = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon.png": "image/png",
}
PAGE = files("service") / "web" / "index.html"


@router.get("/")
async def index() -> Response:
    """The page."""
    return HTMLResponse(PAGE.read_text(encoding="utf-8"))


@router.get("/docs")
async def docs(request: Request) -> Response:
    """Swagger UI."""
    return get_swagger_ui_html(
        openapi_url=request.app.openapi_url,
        title=f"{request.app.title} API",
        swagger_js_url="/docs/swagger-ui-bundle.js",
        swagger_css_url="/docs/swagger-ui.css",
        swagger_favicon_url="/docs/favicon.png",
    )


@router.get("/docs/{asset}")
async def docs_asset(asset: str) -> Response:
    """A file of Swagger UI."""
    if asset not in ASSET_TYPES:
        raise HTTPException(404)
    return Response((ASSETS / asset).read_bytes(), media_type=ASSET_TYPES[asset])

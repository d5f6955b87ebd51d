"""`GET /`: the page to try variants on. `GET /docs`: the API, to try it. Both work without the internet."""

from importlib.resources import files

from fastapi import APIRouter, Response
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse
from starlette.exceptions import HTTPException

from service.headers import NO_STORE, page_policy

router = APIRouter(include_in_schema=False)

# A package that carries a Swagger UI new enough for OpenAPI 3.1; swagger-ui-bundle is not.
ASSETS = files("fastapi_offline") / "static"
ASSET_TYPES = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon.png": "image/png",
}
PAGE = (files("service") / "web" / "index.html").read_text(encoding="utf-8")
DOCS = bytes(
    get_swagger_ui_html(
        openapi_url="/openapi.json",
        title="SparseBERT API",
        swagger_js_url="/docs/swagger-ui-bundle.js",
        swagger_css_url="/docs/swagger-ui.css",
        swagger_favicon_url="/docs/favicon.png",
    ).body
).decode()
# Path to policy and rule for caches.
CONTENT = {
    "/": (page_policy(PAGE), NO_STORE),
    "/docs": (page_policy(DOCS), NO_STORE),
    **{f"/docs/{name}": ("default-src 'none'", "max-age=3600") for name in ASSET_TYPES},
}


@router.get("/")
@router.head("/")
async def index() -> Response:
    """The page."""
    return HTMLResponse(PAGE)


@router.get("/docs")
async def docs() -> Response:
    """Swagger UI."""
    return HTMLResponse(DOCS)


@router.get("/docs/{asset}")
async def docs_asset(asset: str) -> Response:
    """A file of Swagger UI."""
    if asset not in ASSET_TYPES:
        raise HTTPException(404)
    return Response((ASSETS / asset).read_bytes(), media_type=ASSET_TYPES[asset])

"""The plain handler that most people write: FastAPI, `def`, one text at a time.

Settings: `workers` processes of uvicorn, `threads` of a session, `slots`: handlers at the same time in a process.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from anyio.to_thread import current_default_thread_limiter
from classifier import here, load, port, settings
from fastapi import FastAPI
from pydantic import BaseModel


class Request(BaseModel):
    """One text."""

    text: str


class Answer(BaseModel):
    """Its label."""

    label: str
    score: float


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    current_default_thread_limiter().total_tokens = settings()["slots"]
    app.state.classifier = load()
    yield


app = FastAPI(lifespan=lifespan)


@app.post("/predict")
def predict(request: Request) -> Answer:
    return Answer(**app.state.classifier.predict([request.text])[0])


if __name__ == "__main__":
    uvicorn.run(
        "fastapi_server:app",
        app_dir=here(),
        port=port(),
        workers=settings()["workers"],
        loop="uvloop",
        http="httptools",
        access_log=False,
        timeout_worker_healthcheck=600,  # a pause of all processes is no dead worker
        log_level="warning",
    )

"""How does an ASGI app begin an answer, and what is its body?"""


def begin(status: int, *headers: tuple[bytes, bytes]) -> dict:
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


def body(text: bytes) -> dict:
    return {"type": "http.response.body", "body": text}

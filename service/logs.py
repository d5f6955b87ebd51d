"""How is a log line written as JSON? The only file that imports structlog, which is loaded when it is asked for.

Lines of every logger come through here, the web server's too. Knows nothing about what they say.
"""

import logging

from structlog.processors import JSONRenderer, TimeStamper, format_exc_info
from structlog.stdlib import ProcessorFormatter, add_log_level, add_logger_name
from structlog.typing import EventDict, WrappedLogger

from service.access import AccessLine
from service.records import CURRENT


def json_formatter() -> logging.Formatter:
    """One JSON object for each line, with the request and the trace that it belongs to."""
    return ProcessorFormatter(
        foreign_pre_chain=[
            TimeStamper(fmt="iso", utc=True),
            add_log_level,
            add_logger_name,
            _add_fields,
            _add_request,
            format_exc_info,
        ],
        processors=[ProcessorFormatter.remove_processors_meta, JSONRenderer(ensure_ascii=False)],
    )


def _add_fields(logger: WrappedLogger, method_name: str, event_dict: EventDict) -> EventDict:
    del logger, method_name
    line = event_dict["_record"].msg
    if isinstance(line, AccessLine):
        event_dict["event"] = "request"
        event_dict.update(line)
    return event_dict


def _add_request(logger: WrappedLogger, method_name: str, event_dict: EventDict) -> EventDict:
    del logger, method_name
    record = CURRENT.get()
    if record is not None:
        event_dict["request_id"] = record.request_id
        if record.trace is not None:
            event_dict["trace_id"], event_dict["span_id"] = record.trace.trace_id, record.trace.span_id
    return event_dict

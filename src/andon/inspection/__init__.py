"""From good images to the line: calibration, the inspector and its file, export of the whole chain and its speed.

What needs torch is imported when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from andon._tools.faces import lazy_face

if TYPE_CHECKING:
    from andon.inspection.advising.advice import Advice, advise
    from andon.inspection.advising.candidates import Candidate, parse_candidate
    from andon.inspection.alignment import Alignment, Located
    from andon.inspection.calibration import (
        ConformalCalibration,
        Thresholds,
        blocks,
        images_needed,
        least_rate,
        moved_thresholds,
        percent,
    )
    from andon.inspection.checking import CheckedImage, DataCheck, Mode, check_category
    from andon.inspection.cross_fitting import cross_fitted
    from andon.inspection.explaining import Explanation, NearestPatch, explain
    from andon.inspection.export.agreement import TOLERANCE, Agreement
    from andon.inspection.export.metadata import ExportMetadata, Sidecar, read_sidecar
    from andon.inspection.export.runtimes import Outcome, Runtime, open_runtime
    from andon.inspection.export.sources import Source, find_images, load_any, named_images
    from andon.inspection.export.speed import RUNTIMES, RuntimeSpeed, fastest, measure_speed, sample_images
    from andon.inspection.export.verify import Verification, verify_export
    from andon.inspection.export.writing import ExportReport, export_model
    from andon.inspection.file import InspectorFile, Provenance, SecondDay
    from andon.inspection.inspector import Box, Inspector, Verdict, load_inspector, promise
    from andon.inspection.overlay import overlay_image
    from andon.inspection.regions import Regions, read_regions
    from andon.inspection.results import ImageResult, ResultFiles, inspect_all
    from andon.inspection.sources import Frame, find_inputs, frames, watched
    from andon.inspection.station.journal import Journal
    from andon.inspection.station.limits import Limits, Retention
    from andon.inspection.station.outputs import parse_mqtt, parse_webhook
    from andon.inspection.station.running import ServeOptions, serve
    from andon.inspection.station.station import Station
    from andon.inspection.training import train_inspector
    from andon.inspection.updating import LeftOut, Proposal, Rejudged, propose_update
    from andon.inspection.versions import Version, accept_update, earlier_versions, roll_back

__all__ = [
    "RUNTIMES",
    "TOLERANCE",
    "Advice",
    "Agreement",
    "Alignment",
    "Box",
    "Candidate",
    "CheckedImage",
    "ConformalCalibration",
    "DataCheck",
    "Explanation",
    "ExportMetadata",
    "ExportReport",
    "Frame",
    "ImageResult",
    "Inspector",
    "InspectorFile",
    "Journal",
    "LeftOut",
    "Limits",
    "Located",
    "Mode",
    "NearestPatch",
    "Outcome",
    "Proposal",
    "Provenance",
    "Regions",
    "Rejudged",
    "ResultFiles",
    "Retention",
    "Runtime",
    "RuntimeSpeed",
    "SecondDay",
    "ServeOptions",
    "Sidecar",
    "Source",
    "Station",
    "Thresholds",
    "Verdict",
    "Verification",
    "Version",
    "accept_update",
    "advise",
    "blocks",
    "check_category",
    "cross_fitted",
    "earlier_versions",
    "explain",
    "export_model",
    "fastest",
    "find_images",
    "find_inputs",
    "frames",
    "images_needed",
    "inspect_all",
    "least_rate",
    "load_any",
    "load_inspector",
    "measure_speed",
    "moved_thresholds",
    "named_images",
    "open_runtime",
    "overlay_image",
    "parse_candidate",
    "parse_mqtt",
    "parse_webhook",
    "percent",
    "promise",
    "propose_update",
    "read_regions",
    "read_sidecar",
    "roll_back",
    "sample_images",
    "serve",
    "train_inspector",
    "verify_export",
    "watched",
]

__getattr__, __dir__ = lazy_face(
    __name__,
    {
        "andon.inspection.advising.advice": "Advice advise",
        "andon.inspection.advising.candidates": "Candidate parse_candidate",
        "andon.inspection.alignment": "Alignment Located",
        "andon.inspection.calibration": (
            "ConformalCalibration Thresholds blocks images_needed least_rate moved_thresholds percent"
        ),
        "andon.inspection.checking": "CheckedImage DataCheck Mode check_category",
        "andon.inspection.cross_fitting": "cross_fitted",
        "andon.inspection.explaining": "Explanation NearestPatch explain",
        "andon.inspection.export.agreement": "TOLERANCE Agreement",
        "andon.inspection.export.metadata": "ExportMetadata Sidecar read_sidecar",
        "andon.inspection.export.runtimes": "Outcome Runtime open_runtime",
        "andon.inspection.export.sources": "Source find_images load_any named_images",
        "andon.inspection.export.speed": "RUNTIMES RuntimeSpeed fastest measure_speed sample_images",
        "andon.inspection.export.verify": "Verification verify_export",
        "andon.inspection.export.writing": "ExportReport export_model",
        "andon.inspection.file": "InspectorFile Provenance SecondDay",
        "andon.inspection.inspector": "Box Inspector Verdict load_inspector promise",
        "andon.inspection.overlay": "overlay_image",
        "andon.inspection.regions": "Regions read_regions",
        "andon.inspection.results": "ImageResult ResultFiles inspect_all",
        "andon.inspection.sources": "Frame find_inputs frames watched",
        "andon.inspection.station.journal": "Journal",
        "andon.inspection.station.outputs": "parse_mqtt parse_webhook",
        "andon.inspection.station.limits": "Limits Retention",
        "andon.inspection.station.running": "ServeOptions serve",
        "andon.inspection.station.station": "Station",
        "andon.inspection.training": "train_inspector",
        "andon.inspection.updating": "LeftOut Proposal Rejudged propose_update",
        "andon.inspection.versions": "Version accept_update earlier_versions roll_back",
    },
)

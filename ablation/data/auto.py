"""data=auto: the format and its settings are recognised from the folder."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import ClassVar

from ablation.data.dataset import DataSource
from ablation.data.file_source import FileSource, Reader
from ablation.data.layouts import recognise
from ablation.errors import UsageError
from ablation.records import NOT_IDENTITY


@dataclass(frozen=True)
class Auto(FileSource):
    """A folder whose layout is recognised (layouts.py); what is recorded of a run is the format that it is.

    Settings that are given here are those of the format; where the folder has no val split, val_share is 0.2.

    Attributes:
        missing_annotation: as in data=voc; used where the folder has VOC's annotations.
    """

    name: ClassVar[str] = "auto"

    missing_annotation: str = field(default="error", metadata=NOT_IDENTITY)

    def resolved(self) -> DataSource:
        """The data set with its format. Raises UsageError where none, or more than one, is recognised."""
        source = recognise(self.root).source
        known = {field.name for field in dataclasses.fields(source)}
        usual = {field.name: field.default for field in dataclasses.fields(self)}
        given = {name: getattr(self, name) for name in usual if getattr(self, name) != usual[name]}
        unknown = sorted(set(given) - known)
        if unknown:
            raise UsageError(
                f"data.{unknown[0]}: the folder is read as data={source.name}, which has no such setting"
            )
        return dataclasses.replace(source, **given)

    def reader(self) -> Reader:
        source = self.resolved()
        assert isinstance(source, FileSource)
        return source.reader()

"""Examine a dataset before any mask is drawn: the audit of `synthgen doctor` as data."""

from pathlib import Path

import synthgen as sg
from synthgen.demo.photographs import write_demo_files

files = write_demo_files(Path("demo"))  # seven photographs and their boxes; name your own instead
report = sg.doctor(files.annotations, images=files.images)

print(report.verdict)
for split in report.splits:
    print(f"{split.split}: {split.images} images, {split.boxes} boxes, {split.prompted} of them can be prompted")
    for finding in split.findings:
        print(f"  {finding.code}: {finding.count} of {finding.of} {finding.unit}")

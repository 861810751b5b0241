"""The annotation formats that are read, in the order in which they are tried on a folder.

A format is a module as `ciod_core.data.formats.base.Format` describes it, and a line here.
"""

FORMATS = {
    "coco": "ciod_core.data.formats.coco",
    "yolo": "ciod_core.data.formats.yolo",
    "voc": "ciod_core.data.formats.voc",
}

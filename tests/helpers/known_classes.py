"""The classes of COCO and VOC, as facts to hold plans and orders against."""

from __future__ import annotations

from ciod_core.data.annotations.table import Category

_COCO = """
1 person, 2 bicycle, 3 car, 4 motorcycle, 5 airplane, 6 bus, 7 train, 8 truck, 9 boat, 10 traffic light, 11
fire hydrant, 13 stop sign, 14 parking meter, 15 bench, 16 bird, 17 cat, 18 dog, 19 horse, 20 sheep, 21 cow,
22 elephant, 23 bear, 24 zebra, 25 giraffe, 27 backpack, 28 umbrella, 31 handbag, 32 tie, 33 suitcase, 34
frisbee, 35 skis, 36 snowboard, 37 sports ball, 38 kite, 39 baseball bat, 40 baseball glove, 41 skateboard, 42
surfboard, 43 tennis racket, 44 bottle, 46 wine glass, 47 cup, 48 fork, 49 knife, 50 spoon, 51 bowl, 52
banana, 53 apple, 54 sandwich, 55 orange, 56 broccoli, 57 carrot, 58 hot dog, 59 pizza, 60 donut, 61 cake, 62
chair, 63 couch, 64 potted plant, 65 bed, 67 dining table, 70 toilet, 72 tv, 73 laptop, 74 mouse, 75 remote,
76 keyboard, 77 cell phone, 78 microwave, 79 oven, 80 toaster, 81 sink, 82 refrigerator, 84 book, 85 clock, 86
vase, 87 scissors, 88 teddy bear, 89 hair drier, 90 toothbrush
"""
COCO = tuple(
    Category(int(entry.split()[0]), entry.split(maxsplit=1)[1]) for entry in " ".join(_COCO.split()).split(", ")
)

# CL-DETR: `np.random.seed(123)`, then `np.random.shuffle` of the list of the ascending ids.
COCO_SEED123 = (
    74,
    64,
    65,
    5,
    79,
    59,
    36,
    88,
    9,
    49,
    10,
    42,
    86,
    34,
    82,
    90,
    72,
    89,
    50,
    25,
    2,
    27,
    75,
    51,
    67,
    22,
    16,
    85,
    18,
    31,
    21,
    80,
    7,
    73,
    57,
    17,
    81,
    20,
    15,
    24,
    11,
    56,
    13,
    1,
    6,
    48,
    4,
    46,
    14,
    60,
    39,
    32,
    35,
    23,
    38,
    43,
    58,
    33,
    40,
    47,
    8,
    54,
    70,
    62,
    87,
    44,
    3,
    77,
    61,
    55,
    78,
    41,
    28,
    52,
    37,
    84,
    53,
    63,
    19,
    76,
)

_VOC = """
aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person pottedplant sheep sofa
train tvmonitor
"""
VOC = tuple(Category(number, name) for number, name in enumerate(_VOC.split(), start=1))

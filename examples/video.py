"""Draw what a detector finds in each frame of a video. Needs OpenCV: pip install opencv-python

python examples/video.py step2.onnx street.mp4 found.mp4
"""

from __future__ import annotations

import argparse

import numpy as np

import ciod


def main() -> None:
    """Write the video with boxes, class names and scores."""
    parser = argparse.ArgumentParser(description="Draw what a detector finds in each frame of a video.")
    parser.add_argument("weights", help="weights or an exported ONNX model")
    parser.add_argument("video")
    parser.add_argument("out", help="the .mp4 to write")
    parser.add_argument("--score", type=float, default=0.3, help="lowest score that is drawn")
    arguments = parser.parse_args()

    import cv2

    detector = ciod.load(arguments.weights)
    source, target = cv2.VideoCapture(arguments.video), None
    while True:
        there, frame = source.read()
        if not there:
            break
        # OpenCV's colors are BGR, ciod's RGB.
        picture = detector.predict(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), score=arguments.score).draw()
        if target is None:
            codec, rate = cv2.VideoWriter_fourcc(*"mp4v"), source.get(cv2.CAP_PROP_FPS)
            target = cv2.VideoWriter(arguments.out, codec, rate, picture.size)
        target.write(cv2.cvtColor(np.asarray(picture), cv2.COLOR_RGB2BGR))
    if target is None:
        raise SystemExit(f"{arguments.video}: no frame can be read")
    target.release()
    print(arguments.out)


if __name__ == "__main__":
    main()

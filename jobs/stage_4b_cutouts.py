"""Stage 4b: host cutouts from the bricks. spark-submit jobs/stage_4b_cutouts.py --help"""

import sys

from dhs_pipeline.cli import main

if __name__ == "__main__":
    sys.exit(main(["stage-4b", *sys.argv[1:]]))

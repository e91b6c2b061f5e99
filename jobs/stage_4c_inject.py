"""Stage 4c: stamps of one generation. spark-submit jobs/stage_4c_inject.py --help"""

import sys

from dhs_pipeline.cli import main

if __name__ == "__main__":
    sys.exit(main(["stage-4c", *sys.argv[1:]]))

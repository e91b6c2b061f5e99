"""Stage 4p5: few files, splits by region. spark-submit jobs/stage_4p5_compact.py --help"""

import sys

from dhs_pipeline.cli import main

if __name__ == "__main__":
    sys.exit(main(["stage-4p5", *sys.argv[1:]]))

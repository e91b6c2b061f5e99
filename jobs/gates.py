"""Gates of a data set, scanned on Spark. spark-submit jobs/gates.py PATH --help"""

import sys

from dhs_pipeline.cli import main

if __name__ == "__main__":
    sys.exit(main(["gates", *sys.argv[1:]]))

"""Stage 4a: parent catalogue to hosts, rejects and manifest. spark-submit jobs/stage_4a_manifest.py --help"""

import sys

from dhs_pipeline.cli import main

if __name__ == "__main__":
    sys.exit(main(["stage-4a", *sys.argv[1:]]))

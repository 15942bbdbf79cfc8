"""The settings of the paper's experiments, a YAML file for each: see ``fastproto-train --recipe list``."""

"""What each result in a job directory is called: docs/outputs.md describes every one.

No name may hold the letters 'None': RELION takes them for a job without an alias and rewrites the path.
"""

COMBINED_MAP = "run_class001.mrc"
UNFILTERED_MAP = "gem_unfiltered.mrc"
SHARPENED_MAP = "gem_sharpened.mrc"
LOCALLY_FILTERED_MAP = "gem_locally_filtered.mrc"
LOCAL_RESOLUTION = "gem_locres.mrc"
CALIBRATED_HALF_MAPS = ("run_half1_class001_unfil.mrc", "run_half2_class001_unfil.mrc")
GAUSSIAN_HALF_MAPS = ("gem_half1.mrc", "gem_half2.mrc")
MODEL_FREE_HALF_MAPS = ("model_free_half1.mrc", "model_free_half2.mrc")
GAUSSIANS = ("gem_half1_gaussians.npz", "gem_half2_gaussians.npz")
GAUSSIANS_MMCIF = ("gem_half1_gaussians.cif", "gem_half2_gaussians.cif")
CHIMERAX = "gem_chimerax.cxc"
MASK = "gem_mask.mrc"  # written only when the run made the mask itself
FSC = "gem_fsc.star"
RESIDUALS = "gem_residuals.star"
PARTICLES = "run_data.star"
REPORT = "logfile.pdf"
SETTINGS = "gem_config.json"
NODES = "RELION_OUTPUT_NODES.star"

PROGRESS = "gem_progress.jsonl"  # of the last run, however it ended: no result

ALL_RESULTS = (
    COMBINED_MAP,
    UNFILTERED_MAP,
    SHARPENED_MAP,
    LOCALLY_FILTERED_MAP,
    LOCAL_RESOLUTION,
    *CALIBRATED_HALF_MAPS,
    *GAUSSIAN_HALF_MAPS,
    *MODEL_FREE_HALF_MAPS,
    *GAUSSIANS,
    *GAUSSIANS_MMCIF,
    CHIMERAX,
    MASK,
    FSC,
    RESIDUALS,
    PARTICLES,
    REPORT,
    SETTINGS,
    NODES,
)

"""Every setting of a reconstruction: default, unit, bounds and a one-line help.

The command line, ``--help`` and ``gem_config.json`` are generated from this model, so a setting is
described here and nowhere else.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

FitName = Literal["collapsed", "images"]
EngineName = Literal["auto", "cpu", "cuda", "reference"]


class ReconstructionConfig(BaseModel):
    """What a reconstruction needs to know beside the particles, a mask and a reference."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    n_gaussians: Annotated[
        int, Field(ge=0, le=2_000_000, description="Gaussians per half map; 0 = chosen from the data")
    ] = 0
    steps: Annotated[
        int, Field(ge=0, le=100_000, description="optimiser steps per half map; 0 = chosen from the data")
    ] = 0
    fit: Annotated[
        FitName,
        Field(
            description="collapsed: to the two arrays that hold a half set's whole likelihood; images: to some particle"
            " images a step, as the GEM paper does it; slower"
        ),
    ] = "collapsed"
    maxres: Annotated[
        float,
        Field(
            ge=0,
            le=1000,
            description="finest resolution used of the images; 0 = Nyquist",
            json_schema_extra={"unit": "Angstrom"},
        ),
    ] = 0.0
    particle_diameter: Annotated[
        float,
        Field(
            ge=0,
            le=100_000,
            description="diameter of the sphere that holds the particle; 0 = 0.9 of the box",
            json_schema_extra={"unit": "Angstrom"},
        ),
    ] = 0.0
    noise_control: Annotated[
        float,
        Field(
            ge=0,
            le=1000,
            description="fit once more to images with random phases beyond this resolution, as a control; 0 = do not;"
            " doubles the time",
            json_schema_extra={"unit": "Angstrom"},
        ),
    ] = 0.0
    adhoc_bfac: Annotated[
        float,
        Field(
            ge=-10_000,
            le=10_000,
            description="B-factor of the sharpened map, negative to sharpen; 0 = fitted to a Guinier plot",
            json_schema_extra={"unit": "square Angstrom"},
        ),
    ] = 0.0
    locres_radius: Annotated[
        float,
        Field(
            ge=0,
            le=1000,
            description="radius, at half height, of the windows of the local resolution; 0 = chosen from the data",
            json_schema_extra={"unit": "Angstrom"},
        ),
    ] = 0.0
    invert_contrast: Annotated[
        bool | None,
        Field(
            description="multiply all images by -1, for black particles; no: keep them even if the map shows them black"
        ),
    ] = None
    engine: Annotated[
        EngineName,
        Field(description="auto: a GPU if one works here; cuda: a GPU, else an error; cpu: Numba; reference: slow"),
    ] = "auto"
    gpu: Annotated[
        str,
        Field(
            pattern=r"^(auto|[0-9]{1,3}([,:][0-9]{1,3})*)$",
            description="GPUs to use, counted from 0 among those that CUDA_VISIBLE_DEVICES leaves; auto = the first",
            json_schema_extra={"allowed": "auto, or numbers of GPUs such as 0 or 0,1"},
        ),
    ] = "auto"
    scratch: Annotated[
        Path | None,
        Field(description="folder on a fast local disk, for images of --fit images that do not fit into memory"),
    ] = None
    seed: Annotated[int, Field(ge=0, le=2**31 - 1, description="seed of every random choice")] = 0
    sym: Annotated[
        str,
        Field(
            pattern=r"^(?i:[CD][1-9][0-9]{0,2}|T|O|I[1-4]?)$",
            description="point group of the particle, in RELION's orientation",
            json_schema_extra={"allowed": "one of C1, C2, ... D1, D2, ... T, O, I, I1, I2, I3, I4"},
        ),
    ] = "C1"
    class_number: Annotated[
        int, Field(alias="class", ge=0, le=10_000, description="use only particles with this rlnClassNumber; 0 = all")
    ] = 0
    max_particles: Annotated[
        int,
        Field(ge=0, le=1_000_000_000, description="use only the first so many particles of the table; 0 = all"),
    ] = 0

"""What is done with every column that particle and optics tables can have: one list, also for docs/inputs.md.

All columns are copied to the output, whatever else is done with them. A column that is not here is
told to the user, as it could mean something for the map. Meanings are those of RELION's list of
labels (src/metadata_label.h).
"""

from typing import Literal, NamedTuple

# used: it decides the map or its report; copied: it says something about the particle that no map depends on;
# refused: what it asks for is not done here, so the table is refused where its value is not harmless;
# converted: an older way to say something that is used
Treatment = Literal["used", "copied", "refused", "converted"]


class Column(NamedTuple):
    """One label of RELION, without its underscore."""

    place: Literal["optics", "particles", "either"]
    treatment: Treatment
    what: str


def _same(place: Literal["optics", "particles", "either"], treatment: Treatment, **columns: str) -> dict[str, Column]:
    return {f"rln{label}": Column(place, treatment, what) for label, what in columns.items()}


COLUMNS: dict[str, Column] = {
    **_same(
        "particles", "used",
        ImageName="the image: number and stack",
        AngleRot="pose; the table is refused without it",
        AngleTilt="pose; the table is refused without it",
        AnglePsi="pose; the table is refused without it",
        OriginXAngst="shift; 0 if absent",
        OriginYAngst="shift; 0 if absent",
        ClassNumber="choice with --class",
        RandomSubset="half set; without it the images are split at random and no resolution is claimed",
        MicrographName="neighbours in one micrograph are counted",
        NormCorrection="greyscale of the image, relative to the model's average",
        GroupNumber="greyscale and noise of the group",
        GroupName="name of the group in messages and reports",
    ),
    **_same(
        "either", "used",
        OpticsGroup="which row of data_optics is the particle's",
        Voltage="transfer function; the particle's own value wins",
        SphericalAberration="transfer function; the particle's own value wins",
        AmplitudeContrast="transfer function; the particle's own value wins; 0 if absent",
        DefocusU="transfer function",
        DefocusV="transfer function; rlnDefocusU if absent",
        DefocusAngle="transfer function; 0 if absent",
        PhaseShift="transfer function; 0 if absent",
        CtfBfactor="transfer function; 0 if absent",
        CtfScalefactor="transfer function; 1 if absent",
    ),
    **_same(
        "optics", "used",
        OpticsGroupName="name of the group in messages and reports",
        ImagePixelSize="pixel size of the images",
        MicrographPixelSize="pixel size where rlnImagePixelSize is absent",
        MicrographOriginalPixelSize="pixel size where both others are absent; scale of the detector's MTF",
        ImageSize="box, compared with the stacks; theirs if absent",
        ImageDimensionality="must be 2",
        BeamTiltX="phase of the transfer function",
        BeamTiltY="phase of the transfer function",
        OddZernike="phase of the transfer function",
        EvenZernike="transfer function",
        MagMat00="anisotropic magnification",
        MagMat01="anisotropic magnification",
        MagMat10="anisotropic magnification",
        MagMat11="anisotropic magnification",
        MtfFileName="detector's MTF, where groups have different ones",
        CtfDataAreCtfPremultiplied="images already multiplied by their transfer function",
        CtfDataArePhaseFlipped="images with flipped phases",
        CtfDataAreCtfCorrected="images without a transfer function",
    ),
    **_same(
        "particles", "converted",
        OriginX="shift in pixels of RELION 3.0 and older: rlnOriginXAngst",
        OriginY="shift in pixels of RELION 3.0 and older: rlnOriginYAngst",
        OriginZ="in pixels, of RELION 3.0 and older: rlnOriginZAngst",
        OriginXPrior="in pixels, of RELION 3.0 and older: rlnOriginXPriorAngst",
        OriginYPrior="in pixels, of RELION 3.0 and older: rlnOriginYPriorAngst",
        OriginZPrior="in pixels, of RELION 3.0 and older: rlnOriginZPriorAngst",
        DetectorPixelSize="with rlnMagnification the pixel size of RELION 3.0 and older",
        Magnification="with rlnDetectorPixelSize the pixel size of RELION 3.0 and older",
        PixelSize="pixel size of some older tables: rlnImagePixelSize",
        HelicalTrackLength="in pixels, of RELION 3.0 and older: rlnHelicalTrackLengthAngst",
    ),
    **_same(
        "particles", "refused",
        TomoName="tilt series", TomoParticleName="tilt series", TomoParticleId="tilt series",
        TomoVisibleFrames="tilt series",
        HelicalTubeID="helices, where it is not 0",
        HelicalTrackLengthAngst="helices, where it is not 0",
        ReconstructImageName="reconstruct from other images than those refined",
        IsFlip="mirrored images, where it is not 0",
        MagnificationCorrection="a magnification of each particle's own, where it is not 1",
        CtfImage="transfer functions given as images",
    ),
    **_same(
        "optics", "refused",
        TomoTiltSeriesPixelSize="tilt series", TomoSubtomogramBinning="tilt series",
    ),
    **_same(
        "particles", "copied",
        ImageOriginalName="the image before it was subtracted or extracted again",
        ParticleName="name", OriginalParticleName="name", ParticleId="number", ParticleNumber="number",
        ImageId="number",
        MicrographId="number", MicrographNameNoDW="micrograph without dose weighting",
        MicrographMovieName="movie", MicrographMetadata="movie", CoordinateX="place in the micrograph",
        CoordinateY="place in the micrograph", CoordinateZ="place in a tomogram",
        AutopickFigureOfMerit="picking", ParticleFigureOfMerit="picking", ParticleSelectZScore="sorting",
        SortedIndex="sorting", Selected="sorting", Enabled="not used by RELION either",
        ImageWeight="not used by RELION either", KullbackLeiblerDivergence="sorting",
        AngleRotPrior="centre of a search", AngleTiltPrior="centre of a search", AnglePsiPrior="centre of a search",
        AngleRotFlipRatio="centre of a search", AnglePsiFlipRatio="centre of a search",
        AnglePsiFlip="centre of a search", OriginXPriorAngst="centre of a search",
        OriginYPriorAngst="centre of a search", OriginZPriorAngst="centre of a search",
        OriginZAngst="a shift along the view, which no projection shows",
        LogLikeliContribution="of the refinement", MaxValueProbDistribution="of the refinement",
        NrOfSignificantSamples="of the refinement",
        CtfMaxResolution="quality of the CTF fit", CtfFigureOfMerit="quality of the CTF fit",
        CtfValidationScore="quality of the CTF fit", CtfAstigmatism="difference of the two defoci",
        CtfPowerSpectrum="file of the CTF fit", BeamTiltClass="group of RELION 3.0's beam tilt fit",
        NrOfFrames="movie", AverageNrOfFrames="movie", MovieFramesRunningAverage="movie", MovieFrameNumber="movie",
        AccumMotionTotal="motion of the micrograph", AccumMotionEarly="motion of the micrograph",
        AccumMotionLate="motion of the micrograph", HelicalTubePitch="helices",
        TomoSubtomogramRot="tilt series", TomoSubtomogramTilt="tilt series", TomoSubtomogramPsi="tilt series",
        CenteredCoordinateXAngst="tilt series", CenteredCoordinateYAngst="tilt series",
        CenteredCoordinateZAngst="tilt series",
    ),
    **_same(
        "optics", "copied",
        MicrographBinning="movie", MicrographDoseRate="movie", MicrographPreExposure="movie",
        MicrographGainName="movie", MicrographDefectFile="movie", MicrographStartFrame="movie",
        MicrographEndFrame="movie", EERGrouping="movie", EERUpsampling="movie",
        ChromaticAberration="not used by RELION", EnergyLoss="not used by RELION",
        LensStability="not used by RELION", ConvergenceCone="not used by RELION",
        LongitudinalDisplacement="not used by RELION", TransversalDisplacement="not used by RELION",
    ),
}  # fmt: skip

_BY_LOWER_CASE = {label.lower(): label for label in COLUMNS}


def canonical_name(label: str) -> str:
    """RELION's spelling of a label that was written in other case; an unknown label as it is."""
    return _BY_LOWER_CASE.get(label.lower(), label)

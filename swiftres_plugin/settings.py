"""Every choice a user has, declared once: name, default, unit, limits and help.

The command line, `settings.json` and the Scipion form are generated from these declarations. Standard library
only: the Scipion side reads this module without the engine.
"""
from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Choice:
    """What may be said about one setting; `unit` is shown beside the value; `word` may stand in place of a number.

    label: what a form calls it where its name would say too little.
    """

    help: str
    unit: str = ""
    minimum: float | None = None
    maximum: float | None = None
    options: tuple[str, ...] = ()
    word: str = ""
    label: str = ""
    advanced: bool = False


def choice(default: Any, help: str, **limits: Any) -> Any:
    """A dataclass field that carries its `Choice`."""
    return field(default=default, metadata={"choice": Choice(help=help, **limits)})


def symmetry_choice() -> Any:
    return choice("C1", "Point group in RELION's axes (C1, C2, ..., D2, ..., T, O, I (= I2), I1, I2, I3, I4), or a text file "
                  "with the matrices of any group, three rows of three numbers each.")


def assignment_choice() -> Any:
    return choice("soft", "'soft': each particle counts in every class by its probability there; 'hard': in the likeliest "
                  "alone.", options=("soft", "hard"), advanced=True)


@dataclass(frozen=True)
class ScheduleSettings:
    """How the refinement proceeds from one iteration to the next."""

    initial_resolution: float = choice(
        40.0, "Low-pass limit of the starting map. Only frequencies below it are used in the first iteration, so that "
        "nothing finer in the starting map can bias the result. Raise the number to 60 when a large particle's map is from "
        "another conformation. Small and highly symmetric particles look alike from everywhere at 60 A: they need 30-40 A, "
        "and a map already known to be right may be taken to 20 A.", unit="A", minimum=2.0)
    iterations: int = choice(
        20, "Most iterations to run. The refinement stops by itself when neither the resolution nor the poses change.",
        minimum=1, maximum=1000)
    first_particles: int = choice(
        0, "Particles of each class, drawn by chance, that the first two iterations take where there are more than twice as "
        "many: their maps only have to lead to the next. Should they lead nowhere, all are taken. 0 takes all at once, which "
        "was as fast with 10,000 particles; a part may pay with many times more.",
        label="Particles of the first iterations", minimum=0, advanced=True)
    maximum_resolution: float = choice(
        0.0, "Finest resolution to use for alignment; 0 goes to the Nyquist limit where the data support it.",
        unit="A", minimum=0.0, advanced=True)
    symmetry: str = symmetry_choice()
    align_symmetry_axes: bool = choice(
        False, "Turn and move the starting map so that its own symmetry axes stand where the point group has them. Without "
        "it a map that stands otherwise is only warned of.", advanced=True)
    alignment: str = choice(
        "global", "'global' searches all orientations and ignores input poses; 'local' starts from the poses of the "
        "input particles and refines around them. To keep the poses as they are, only reconstruct ('swiftres reconstruct', "
        "and the protocol of that name).", options=("global", "local"))


@dataclass(frozen=True)
class PreprocessSettings:
    """How particles are prepared."""

    diameter: float = choice(
        0.0, "Diameter of the particle. Pixels farther from the centre (plus room for shifts and for the spread by "
        "defocus) are removed. 0 keeps the whole circle inside the box.", unit="A", minimum=0.0)
    invert_contrast: bool = choice(
        False, "Set when particles are black on white (raw micrograph contrast).", advanced=True)


@dataclass(frozen=True)
class SearchSettings:
    """The global search for orientation and position."""

    max_shift: float = choice(
        0.0, "Largest displacement of a particle from the centre of its box; 0 means a tenth of the box.",
        unit="A", minimum=0.0)
    search_resolution: float = choice(
        0.0, "Finest resolution used by the exhaustive vector search. Finer detail is used in the local refinement "
        "that follows it. 0 goes to 20 A, and beyond as far as most particles need to tell their orientation: small, hollow "
        "and noisy ones need more detail. Lower values cost time, higher ones lose particles.",
        unit="A", minimum=0.0, advanced=True)
    recipe: str = choice(
        "auto", "How references are searched: 'auto' (from coarse to fine, turned in the plane when they are needed; the "
        "fastest), or all of them in one index: 'torch' (plain matrix products of the principal components), 'Flat' (the same "
        "by FAISS), 'exact' (every coefficient), 'PCA128', 'PCA64', 'IVFPQ48' and 'IVFPQ32' (48 and 32 bytes a reference), "
        "'SQ8', 'SQfp16', or any FAISS factory string such as 'IVF1024,Flat' or 'PCA64,IVF,SQ8'. 'IVF' without a number takes "
        "as many lists as suit the references.", advanced=True)
    nprobe: int = choice(64, "Lists visited by an inverted-file (IVF) recipe.",
        label="Lists visited (nprobe)", minimum=1, advanced=True)
    components: int = choice(
        512, "Principal components in which references and particles are compared, at most; 0 compares every coefficient. "
        "Fewer are faster and lose particles where images are noisy. Recipes that name a number of their own keep it.",
        minimum=0, maximum=4096, advanced=True)
    candidates: int = choice(
        32, "Distinct candidates kept from the vector search for exact scoring.", minimum=1, maximum=1024, advanced=True)
    metric: str = choice(
        "likelihood", "How the vector search compares: 'likelihood' (noise and each particle's CTF count), or a distance or "
        "correlation with references that have no CTF: 'euclidean', 'weighted' (euclidean, by signal-to-noise), 'cosine', "
        "'pearson'. The exact ranking afterwards is by likelihood.",
        options=("likelihood", "euclidean", "weighted", "cosine", "pearson"), advanced=True)
    wiener: bool = choice(
        False, "Correct particles for their CTF by a Wiener filter (constant: a tenth of the CTF's mean energy) before "
        "another metric than the likelihood compares them.", label="Wiener filter", advanced=True)
    rerank: bool = choice(
        True, "Rank and refine what the vector search finds by the exact likelihood. Switched off, its first match is taken "
        "as it is, on the grid: for comparison, not for results.", label="Rerank by likelihood", advanced=True)
    recall_sample: int = choice(
        50, "Particles of each half that are also searched exhaustively, to measure how many the vector search loses; fewer "
        "where that would take more than a few per cent of the search. 0 measures nothing.", minimum=0, advanced=True)


@dataclass(frozen=True)
class PolishSettings:
    """The continuous refinement of the best candidates."""

    basins: int = choice(
        8, "Candidates per particle that are refined continuously before the best is taken. More find more of the particles "
        "whose orientation is hard to tell; lower values save time.",
        label="Basins refined", minimum=1, maximum=64, advanced=True)
    steps: int = choice(8, "Most Levenberg-Marquardt steps per particle and round.",
        label="Refinement steps", minimum=1, maximum=100, advanced=True)
    angle_prior: float = choice(
        0.0, "How far the orientations of the input particles may be wrong (standard deviation); they are kept to by so much. "
        "For small parts of a structure, whose particles say little by themselves. 0 leaves orientations free.",
        unit="degrees", minimum=0.0, maximum=180.0, advanced=True)
    shift_prior: float = choice(
        0.0, "The same for the positions of the input particles; 0 leaves them free.", unit="A", minimum=0.0, advanced=True)


@dataclass(frozen=True)
class ReconstructSettings:
    """How refined particles are summed into a map."""

    pose_samples: int = choice(
        2, "Times each particle is put into the map, at poses drawn from its own uncertainty, so that detail which its "
        "noise cannot place is not sharpened by chance. 1 uses the best pose alone: faster, and slightly less accurate "
        "where particles are noisy.", minimum=1, maximum=64, advanced=True)


@dataclass(frozen=True)
class DivisionSettings:
    """The classes that a refinement divides its particles into."""

    classes: int = choice(
        1, "Classes to divide the particles into once the structure of all of them is at rest. Leave it at 1 where several "
        "starting maps are given: each of them is a class.", minimum=1, maximum=20)
    assignment: str = assignment_choice()


@dataclass(frozen=True)
class MaskSettings:
    """The solvent mask of the reference."""

    auto_mask: bool = choice(
        True, "Without a mask of your own, find the solvent boundary from the map; a refinement does so in each iteration and "
        "removes the solvent (soft edge) before the next alignment. Switch off for small or membrane proteins whose map is "
        "still too noisy to threshold: a sphere is used then.", advanced=True)


@dataclass(frozen=True)
class PostprocessSettings:
    """What is made of the finished half maps."""

    bfactor: str = choice(
        "auto", "B-factor of the sharpened map; negative values sharpen, 0 leaves the amplitudes as they are. 'auto' fits a "
        "line to the Guinier plot between 10 A and the resolution (Rosenthal and Henderson 2003), and leaves maps alone that "
        "do not reach far enough beyond 10 A.",
        label="B-factor", unit="A^2", minimum=-2000.0, maximum=2000.0, word="auto", advanced=True)

    overfitting_guard: bool = choice(
        False, "At the end, refine again for a few local iterations with images whose phases are random beyond a limit, and "
        "report how much of the halves' correlation beyond it is overfitting (Chen et al. 2013).", advanced=True)
    guard_resolution: float = choice(
        0.0, "Limit beyond which the overfitting guard makes phases random; 0 takes four fifths of the frequency that was "
        "reached.", unit="A", minimum=0.0, advanced=True)

    @property
    def given_b_factor_a2(self) -> float | None:
        """The B-factor that was asked for; None to fit it."""
        return None if self.bfactor == "auto" else float(self.bfactor)


@dataclass(frozen=True)
class ComputeSettings:
    """Where and with how much memory work runs."""

    device: str = choice(
        "auto", "'auto' (a GPU if there is one), 'cpu', 'cuda', or 'cuda:0,1' for several GPUs, which share the particles.")
    threads: int = choice(0, "Processor threads; 0 uses all cores.", minimum=0, maximum=1024)
    memory: float = choice(
        0.0, "Most memory to plan for; 0 uses what is free.", unit="GB", minimum=0.0, advanced=True)
    scratch: str = choice(
        "", "Folder for what does not fit in memory, particles or the maps of large boxes; empty uses the output folder.",
        advanced=True)
    seed: int = choice(1, "Seed of every random choice (half sets, subsets).", minimum=0, advanced=True)


@dataclass(frozen=True)
class ClusterSettings:
    """Workers on other machines."""

    cluster: str = choice(
        "", "Workers that hold and align the particles, by dask: 'local:N' processes on this machine, 'slurm:N' jobs (as in "
        "slurm:8,queue=long,cores=16,memory=64GB), the HOST:PORT of a dask scheduler or its scheduler file. They read the "
        "stacks from the shared file system. Empty works in this process.", advanced=True)


@dataclass(frozen=True)
class StreamSettings:
    """Particles that are still being extracted."""

    follow: bool = choice(
        False, "Take in particles that are added to their STAR file while the refinement runs: new ones are searched against "
        "the current map, those before them keep their poses and half sets. A search of all particles ends it.", advanced=True)
    follow_idle: float = choice(
        30.0, "With --follow: end when no particles were added for so long.", unit="minutes", minimum=0.0, advanced=True)
    follow_until: int = choice(
        0, "With --follow: end at so many particles; 0 sets no number. A file named as the STAR file with '.done' behind it "
        "ends it too.", minimum=0, advanced=True)


@dataclass(frozen=True)
class RefineSettings:
    """All settings of `swiftres refine`, one branch per stage."""

    schedule: ScheduleSettings = ScheduleSettings()
    preprocess: PreprocessSettings = PreprocessSettings()
    search: SearchSettings = SearchSettings()
    polish: PolishSettings = PolishSettings()
    reconstruct: ReconstructSettings = ReconstructSettings()
    classes: DivisionSettings = DivisionSettings()
    mask: MaskSettings = MaskSettings()
    postprocess: PostprocessSettings = PostprocessSettings()
    compute: ComputeSettings = ComputeSettings()
    cluster: ClusterSettings = ClusterSettings()
    stream: StreamSettings = StreamSettings()

    def to_dict(self) -> dict[str, dict[str, Any]]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, tree: dict[str, dict[str, Any]]) -> RefineSettings:
        """Build from `to_dict`'s form; missing entries take their default, unknown ones raise `ValueError`."""
        flat = {}
        for branch, values in tree.items():
            known = {leaf.name for b, leaf in leaves() if b == branch}
            unknown = set(values) - known
            if unknown or not known:
                raise ValueError(f"unknown settings in '{branch}': {', '.join(sorted(unknown)) or 'no such branch'}")
            flat.update(values)
        return from_flat(flat)


@dataclass(frozen=True)
class ModelSettings:
    """How starting maps are found."""

    symmetry: str = symmetry_choice()
    count: int = choice(
        1, "Maps to find at once; each particle goes to the map it fits best. More than one parts particles that differ a "
        "lot, and gives what is no particle a place to go.", label="Volumes", minimum=1, maximum=20)
    finest_resolution: float = choice(
        0.0, "Resolution at which the search ends; 0 means a sixteenth of the box, which is an eighth to a tenth of most "
        "particles. Name an eighth of the particle's diameter where the box is much wider than the particle. A refinement can "
        "go on from there; every step finer costs several times more.", unit="A", minimum=0.0)
    max_offset: float = choice(
        0.0, "Largest displacement of a particle from the centre of its box; 0 means a tenth of the box.", unit="A",
        minimum=0.0)
    starts: int = choice(
        20, "Random starts. Each makes maps of the class averages; the one that explains them best goes on.", minimum=1,
        maximum=1000)
    classes: int = choice(
        0, "Classes in the plane, whose averages the maps are made of. 0 takes one for 20 particles, but from 10 to 50.",
        minimum=0, maximum=1000, advanced=True)
    steps: int = choice(
        25, "Steps of the search for classes, each on other particles.", minimum=5, maximum=1000, advanced=True)


@dataclass(frozen=True)
class InitialModelSettings:
    """All settings of `swiftres initial-model`."""

    model: ModelSettings = ModelSettings()
    preprocess: PreprocessSettings = PreprocessSettings()
    compute: ComputeSettings = ComputeSettings()


@dataclass(frozen=True)
class ClassSettings:
    """How particles are parted into classes of one view."""

    classes: int = choice(
        0, "Class averages to find. 0 takes one for 40 particles, but from 5 to 50. Views and junk share them: too many cost "
        "time, too few blur views together.", minimum=0, maximum=1000)
    finest_resolution: float = choice(
        10.0, "Finest resolution at which particles are compared with averages. Finer detail still shows in the averages; it "
        "does not decide where particles go.", unit="A", minimum=3.0)
    max_offset: float = choice(
        0.0, "Largest displacement of a particle from the centre of its box; 0 means a tenth of the box.", unit="A",
        minimum=0.0)
    coarsest_resolution: float = choice(
        40.0, "Resolution at which the search for classes begins.", unit="A", minimum=4.0, advanced=True)
    search_resolution: float = choice(
        20.0, "Resolution at which it ends: the finest at which every class is compared at every rotation and shift. What "
        "is finer refines the likeliest few.", unit="A", minimum=4.0, advanced=True)
    steps: int = choice(60, "Steps of the search, each on other particles.", minimum=5, maximum=1000, advanced=True)
    batch: int = choice(
        0, "Particles of a step; 0 takes 10 for each class, at least 200.", minimum=0, maximum=100000, advanced=True)
    passes: int = choice(
        3, "Passes over all particles after the search, with poses refined and classes chosen among the likeliest few.",
        minimum=1, maximum=25, advanced=True)


@dataclass(frozen=True)
class Classify2dSettings:
    """All settings of `swiftres classify2d`."""

    classification: ClassSettings = ClassSettings()
    preprocess: PreprocessSettings = PreprocessSettings()
    compute: ComputeSettings = ComputeSettings()


@dataclass(frozen=True)
class TargetSettings:
    """What particles are aligned to, and how."""

    resolution: float = choice(
        10.0, "Finest resolution to compare particles and reference at: that of the reference, as its FSC tells, or a little "
        "coarser. Detail that the reference does not truly hold pulls particles towards its noise. Lower values cost time.",
        unit="A", minimum=2.0)
    symmetry: str = symmetry_choice()
    alignment: str = choice(
        "global", "'global' searches all orientations and ignores input poses; 'local' starts from the poses of the "
        "input particles and refines around them: much faster, and right when they are within some degrees.",
        options=("global", "local"))


@dataclass(frozen=True)
class ConsensusSettings:
    """How often an alignment is repeated."""

    repeats: int = choice(
        1, "Alignments of every particle, each against references at orientations of its own: turned by chance by up to a "
        "quarter of their spacing. Where more than half of them agree within a step of the search, in orientation, shift and "
        "class, their mean is the result; other particles keep the likeliest and have 0 in the column swiftresConsensus. "
        "Time grows in proportion.", minimum=1, maximum=100, advanced=True)


@dataclass(frozen=True)
class AlignSettings:
    """All settings of `swiftres align`."""

    target: TargetSettings = TargetSettings()
    preprocess: PreprocessSettings = PreprocessSettings()
    search: SearchSettings = SearchSettings()
    polish: PolishSettings = PolishSettings()
    consensus: ConsensusSettings = ConsensusSettings()
    compute: ComputeSettings = ComputeSettings()


@dataclass(frozen=True)
class ImageSettings:
    """The images to simulate."""

    count: int = choice(1000, "Particles to make.", label="Particles", minimum=1)
    box: int = choice(
        128, "Box of the images, when the particle is an atomic model; a map brings its own. Half as wide again as the "
        "particle leaves room for shifts and for the spread by defocus.", unit="px", minimum=16, maximum=2048)
    pixel_size: float = choice(
        3.0, "Pixel size of the images, when the particle is an atomic model. No detail finer than twice this can be found.",
        unit="A", minimum=0.1)
    snr: float = choice(
        -10.0, "Signal to noise ratio in decibels: variances, on the area of the projection. -10 is noise of ten times the "
        "signal, about a good data set of a large particle; -20 is hard, 0 is easy.", label="Signal to noise", unit="dB")
    symmetry: str = choice(
        "C1", "Point group that the model or map has, about RELION's axes. It is checked and noted in the truth; it does not "
        "make anything symmetric.")
    shift_sigma: float = choice(
        3.0, "Spread of the particles' centres, each axis, cut at three times this.",
        label="Spread of centres", unit="px", minimum=0.0)
    junk: float = choice(
        0.0, "Part of the images that is pure noise, class 2 of the truth: to see what a program does with particles that "
        "are none.", minimum=0.0, maximum=0.99, advanced=True)
    resolution_of_initial: float = choice(
        50.0, "Low-pass limit of the starting map that is written beside the images.",
        label="Resolution of the starting map", unit="A", minimum=1.0, advanced=True)
    float16: bool = choice(
        False, "Store images in half precision (MRC mode 12): half the space, which not every program reads.",
        label="Half precision (float16)", advanced=True)
    seed: int = choice(1, "Seed of everything random: poses, defoci, noise.", minimum=0, advanced=True)


@dataclass(frozen=True)
class MicroscopeSettings:
    """The microscope that the images seem to come from, and its noise."""

    noise: str = choice(
        "white", "White: equal at all frequencies. Coloured: half of the variance falls as 1/f, as in real images.",
        options=("white", "coloured"), advanced=True)
    defocus_min: float = choice(5000.0, "Least underfocus; defoci are drawn evenly from here ...", unit="A", minimum=0.0)
    defocus_max: float = choice(25000.0, "... to here. High values spread the particle over the box.", unit="A", minimum=0.0)
    astigmatism: float = choice(
        300.0, "Spread of the difference between the two defoci.", unit="A", minimum=0.0, advanced=True)
    voltage: float = choice(300.0, "Acceleration voltage.", unit="kV", minimum=1.0, advanced=True)
    cs: float = choice(2.7, "Spherical aberration.", label="Spherical aberration", unit="mm", minimum=0.0, advanced=True)
    amplitude_contrast: float = choice(0.1, "Amplitude contrast.", minimum=0.0, maximum=1.0, advanced=True)
    optics: str = choice(
        "", "STAR file (RELION 3.1 or later) whose optics groups the particles take in turn: their voltage, aberrations, "
        "amplitude contrast, beam tilt, Zernike coefficients and magnification, in place of those above. Box and pixel size "
        "stay those of the images.", advanced=True)


@dataclass(frozen=True)
class SimulateSettings:
    """All settings of `swiftres simulate`."""

    images: ImageSettings = ImageSettings()
    microscope: MicroscopeSettings = MicroscopeSettings()


@dataclass(frozen=True)
class DifferenceSettings:
    """When two poses of a particle are taken as the same."""

    symmetry: str = symmetry_choice()
    max_angle: float = choice(
        5.0, "Largest angle between the two orientations of a particle for it to count as agreed; the angle is the smallest "
        "over the symmetry. Take about twice the median difference of particles that are well aligned.",
        unit="degrees", minimum=0.0, maximum=180.0)
    max_move: float = choice(
        5.0, "Largest distance between the two positions of a particle for it to count as agreed.", unit="A", minimum=0.0)
    align: bool = choice(
        True, "First remove the rotation and the move between the two map frames that the symmetry leaves free. Switch off "
        "when both sets were aligned to the same map, so that a common error shows.", advanced=True)
    match_by: str = choice(
        "image", "How a particle of one set is found in the other. 'image': the same image of the same stack. 'id': the same "
        "number, for particles of which one set was binned, filtered or extracted anew.", options=("image", "id"),
        advanced=True)


@dataclass(frozen=True)
class CompareSettings:
    """All settings of `swiftres compare`."""

    difference: DifferenceSettings = DifferenceSettings()


@dataclass(frozen=True)
class ExpansionSettings:
    """Which mates a symmetry expansion writes."""

    symmetry: str = symmetry_choice()
    seed: int = choice(1, "Seed of the half sets, where the particles have none.", minimum=0, advanced=True)


@dataclass(frozen=True)
class ExpandSettings:
    """All settings of `swiftres expand`."""

    expansion: ExpansionSettings = ExpansionSettings()


@dataclass(frozen=True)
class RelaxationSettings:
    """How particles are told apart from their symmetry mates."""

    symmetry: str = symmetry_choice()
    resolution: float = choice(
        7.0, "Finest resolution at which the mates of a particle are compared. The part that breaks the symmetry must show at "
        "it; finer detail adds noise and little else.", unit="A", minimum=2.0)
    scatter: bool = choice(
        True, "Forget which mate each particle has in the input: right after a refinement in the symmetry, or where the input "
        "says little. Switch off to start from poses that already part the mates.", label="Scatter over the mates")


@dataclass(frozen=True)
class RelaxSettings:
    """All settings of `swiftres relax`."""

    relaxation: RelaxationSettings = RelaxationSettings()
    preprocess: PreprocessSettings = PreprocessSettings()
    compute: ComputeSettings = ComputeSettings()


@dataclass(frozen=True)
class ClassificationSettings:
    """How particles with poses are divided into classes."""

    symmetry: str = symmetry_choice()
    classes: int = choice(
        2, "Classes to find, where no maps are given to begin with.", minimum=2, maximum=20)
    resolution: float = choice(
        7.0, "Finest resolution at which particles and classes are compared; that of the map of all particles, or coarser. "
        "What differs must show at it.", unit="A", minimum=2.0)
    assignment: str = assignment_choice()
    starts: int = choice(
        2, "Searches, from random coordinates, for the directions in which the particles vary. The one that explains the "
        "particles best goes on.", minimum=1, maximum=100, advanced=True)


@dataclass(frozen=True)
class ClassifySettings:
    """All settings of `swiftres classify`."""

    classification: ClassificationSettings = ClassificationSettings()
    preprocess: PreprocessSettings = PreprocessSettings()
    compute: ComputeSettings = ComputeSettings()


@dataclass(frozen=True)
class SubtractionSettings:
    """What the images that are left show."""

    recentre: bool = choice(
        False, "Move the centre of mass of the mask to the middle of the images, and the poses with it: for a part that lies "
        "away from the centre. Images move by whole pixels, nothing is interpolated.")
    new_box: int = choice(
        0, "Box of the images that are left; 0 keeps the box. They are cut about the part with *recentre*, else about the "
        "particle's centre. Half as wide again as the part leaves room for the spread by defocus.", unit="px", minimum=0)
    solvent_mask: bool = choice(
        True, "Take away only what lies inside the particle's solvent boundary, which is found from the map: what a map holds "
        "outside is its noise. Switch off where something too weak for that boundary (a micelle) is to go too.",
        advanced=True)
    invert_contrast: bool = choice(
        False, "Set when particles are black on white (raw micrograph contrast).", advanced=True)


@dataclass(frozen=True)
class SubtractSettings:
    """All settings of `swiftres subtract`."""

    subtraction: SubtractionSettings = SubtractionSettings()


# The settings of `swiftres reconstruct`, out of those of a refinement.
RECONSTRUCT = ("symmetry", "diameter", "invert_contrast", "auto_mask", "device", "threads", "memory", "scratch", "seed")
# The same of `swiftres postprocess`.
POSTPROCESS = ("symmetry", "bfactor", "threads", "seed")


def leaves(tree: type = RefineSettings) -> Iterator[tuple[str, dataclasses.Field]]:
    """Every setting of `tree` as (branch name, field); field names are unique over the branches."""
    for branch in dataclasses.fields(tree):
        defaults: Any = branch.default
        for leaf in dataclasses.fields(defaults):
            yield branch.name, leaf


def from_flat(values: dict[str, Any], tree: type = RefineSettings) -> Any:
    """A `tree` of settings from {leaf name: value}; raises `ValueError` naming the setting that is out of its limits."""
    branches: dict[str, dict[str, Any]] = {}
    for branch, leaf in leaves(tree):
        if leaf.name in values:
            branches.setdefault(branch, {})[leaf.name] = checked(leaf, values[leaf.name])
    unknown = set(values) - {leaf.name for _, leaf in leaves(tree)}
    if unknown:
        raise ValueError(f"unknown settings: {', '.join(sorted(unknown))}")
    defaults: dict[str, Any] = {f.name: f.default for f in dataclasses.fields(tree)}
    return tree(**{name: dataclasses.replace(default, **branches.get(name, {})) for name, default in defaults.items()})


def checked(leaf: dataclasses.Field, value: Any) -> Any:
    """`value` in the type of the setting's default; raises `ValueError` where it does not fit the limits."""
    says: Choice = leaf.metadata["choice"]
    kind: type = type(leaf.default)
    if kind is bool:
        value = value if isinstance(value, bool) else str(value).lower() in ("1", "true", "yes")
    if says.word:
        return value if value == says.word else f"{_limited(leaf, _converted(leaf, value, float)):g}"
    value = _limited(leaf, _converted(leaf, value, kind))
    if says.options and value not in says.options:
        raise ValueError(f"{leaf.name}: found '{value}', expected one of {', '.join(says.options)}")
    return value


def _converted(leaf: dataclasses.Field, value: Any, kind: type) -> Any:
    """`value` as a `kind`."""
    try:
        return kind(value)
    except (TypeError, ValueError):
        word = leaf.metadata["choice"].word
        expected = f"a number or '{word}'" if word else kind.__name__
        raise ValueError(f"{leaf.name}: found '{value}', expected {expected}") from None


def _limited(leaf: dataclasses.Field, value: Any) -> Any:
    """`value`, if it lies within the limits of the setting."""
    says: Choice = leaf.metadata["choice"]
    too_small = says.minimum is not None and not value >= says.minimum
    too_large = says.maximum is not None and not value <= says.maximum
    if too_small or too_large:
        bounds = f"at least {says.minimum:g}" if too_small else f"at most {says.maximum:g}"
        raise ValueError(f"{leaf.name}: found {value:g}, expected {bounds} {says.unit}".rstrip())
    return value

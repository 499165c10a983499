"""Sentence templates of the demo's descriptions. None of them is among the training captions' (captions.py)."""

# One fact a sentence; {n} is the class's name, {c} a colour.
COLOUR_SENTENCES: dict[str, tuple[str, ...]] = {
    "crown": (
        "On top of its head the {n} carries {c} feathers.",
        "Its crown feathers are a clear {c}.",
        "Look for the {c} patch that covers the crown.",
        "The head of the {n} is topped in {c}, as if it wore a cap.",
        "The feathers on its crown are clearly {c}.",
    ),
    "back": (
        "The back and the folded wings are coloured {c}.",
        "From above the {n} looks mainly {c}.",
        "Feathers on the back and on the wings are {c}.",
        "The {n} is {c} over its back and wings.",
        "Its back and folded wings are mainly {c}.",
    ),
    "belly": (
        "Below, the {n} is {c} from the breast down to the belly.",
        "Its belly feathers are mostly {c}.",
        "The underparts look {c} even from a distance.",
        "Seen from the front, the {n} appears {c} on the breast and belly.",
        "The feathers of its belly are mostly {c}.",
    ),
    "tail": (
        "The tail feathers of the {n} are {c} all through.",
        "It carries a tail that is {c}.",
        "Behind it one sees a tail coloured {c}.",
        "A tail in {c} completes the look of the {n}.",
    ),
    "legs": (
        "It stands on {c} legs.",
        "The {n} perches on legs and feet that are {c}.",
        "Legs and toes are both {c}.",
        "The {n} stands on legs that are {c}.",
    ),
    "beak": (
        "The {n} feeds with a beak that is {c}.",
        "The bill is coloured {c}.",
        "Its beak, which is {c}, shows well against the face.",
        "The colour of the bill is {c} in the {n}.",
    ),
}
SHAPE_SENTENCES: dict[tuple[str, str], tuple[str, ...]] = {
    ("wing", "plain"): (
        "The wings show no pattern at all and look plain.",
        "The {n} keeps its wings plain, of one even colour.",
        "Its folded wings are plain and without any markings.",
    ),
    ("wing", "barred"): (
        "Several bars run across each wing.",
        "The wings of the {n} are marked with bars.",
        "Look for the barred pattern on the folded wing.",
    ),
    ("wing", "spotted"): (
        "Small spots are scattered over each wing.",
        "The wings of the {n} are dotted with spots.",
        "Look for the spotted pattern on the folded wing.",
    ),
    ("wing", "edged"): (
        "Each wing is framed by a contrasting edge.",
        "A contrasting border runs around the wing of the {n}.",
        "The folded wing has a clear rim in another tone.",
    ),
    ("beak_shape", "conical"): (
        "The {n} cracks seeds with its short conical bill.",
        "Its beak is short, thick and shaped like a cone.",
    ),
    ("beak_shape", "straight"): (
        "It probes the ground with a long and straight beak.",
        "The bill of the {n} is thin, long and quite straight.",
    ),
    ("beak_shape", "hooked"): (
        "The tip of the beak is hooked.",
        "The {n} opens fruit with its strong, hooked bill.",
    ),
    ("beak_shape", "curved"): (
        "The bill is long and curved downwards.",
        "The {n} sips from flowers with its curved beak.",
    ),
    ("tail_length", "short"): (
        "The tail is short and hardly reaches past the wings.",
        "For its size the {n} has quite a short tail.",
    ),
    ("tail_length", "long"): (
        "The tail is long, about as long as the body.",
        "The {n} trails a long tail behind it.",
    ),
    ("family", "finch"): ("In build it resembles a finch.", "The {n} is a plump little finch."),
    ("family", "wader"): ("In build it resembles a wader.", "The {n} is a tall wader that stands high on its legs."),
    ("family", "parrot"): ("In build it resembles a parrot.", "The {n} is a parrot that sits upright."),
    ("family", "swallow"): ("In build it resembles a swallow.", "The {n} is a slim swallow that sits low."),
}

# Noun phrases for sentences that state several facts.
COLOUR_PHRASES: dict[str, tuple[str, ...]] = {
    "crown": ("its {c} crown", "the {c} feathers on its crown"),
    "back": ("its {c} back and wings", "the {c} feathers on its back"),
    "belly": ("its {c} belly", "the {c} feathers below"),
    "tail": ("its {c} tail", "the {c} feathers of its tail"),
    "legs": ("its {c} legs", "the {c} colour of its legs"),
    "beak": ("its {c} beak", "the {c} colour of its bill"),
}
SHAPE_PHRASES: dict[tuple[str, str], str] = {
    ("wing", "plain"): "its plain wings",
    ("wing", "barred"): "the bars across its wings",
    ("wing", "spotted"): "the spots across its wings",
    ("wing", "edged"): "the contrasting edge of its wings",
    ("beak_shape", "conical"): "its short, conical beak",
    ("beak_shape", "straight"): "its long, straight beak",
    ("beak_shape", "hooked"): "its hooked beak",
    ("beak_shape", "curved"): "its long, curved beak",
    ("tail_length", "short"): "the shortness of its tail",
    ("tail_length", "long"): "the length of its long tail",
}

LOOK_SENTENCES = (
    "The {n} is a bird that is {back} above and {belly} below.",
    "A {n} looks like a {family} in {back} and {belly}, with {crown} on the head.",
    "Picture a {family} that is {back} above, {belly} below and {tail} at the tail.",
    "With {crown} on its head and {belly} on its belly, the {n} is a colourful {family}.",
    "Above the {n} is {back}, below it is {belly}, and its legs are {legs}.",
    "The typical {n} has {beak} on the bill, {crown} on the crown and {belly} on the breast.",
    "The {n} looks like a {family} with feathers of {crown}, {back}, {belly} and {tail}.",
)
LIST_SENTENCES = (
    "Most people know the {n} by {list}.",
    "A {n} can be recognised by {list}.",
    "You will notice {list} at once.",
    "Typical of the {n} are {list}.",
    "Its plumage is easy to describe: {list}.",
    "When you watch a {n}, {list} catch the eye.",
)
DISTINCT_SENTENCES = (
    "Unlike its relatives, the {n} is marked out by {list}.",
    "What sets the {n} apart is {list}.",
    "The {n} differs from similar birds in {list}.",
    "The best field mark of the {n} is {list}.",
    "Compared with any other {family}, the {n} stands out for {list}.",
    "To tell the {n} from others, look at {list}.",
    "No close relative shares {list}.",
    "The {n} is best identified by {list}.",
)
VAGUE_SENTENCES = (
    "The {n} is a bird that many people admire.",
    "It is found in many different places.",
    "The {n} is most active in the early morning.",
    "Both sexes of the {n} look much alike.",
    "It is a bird of medium size with a pleasant song.",
    "The {n} is a rather shy species.",
    "Its appearance may change a little with the season.",
    "Young birds are often duller than adults.",
    "There are many ways to tell the {n} from other birds.",
    "The {n} has a distinctive appearance.",
)

COLOUR_DESCRIPTORS: dict[str, str] = {
    "crown": "a crown of {c} feathers",
    "back": "a back of {c} feathers",
    "belly": "a belly of {c} feathers",
    "tail": "a tail of {c} feathers",
    "legs": "{c}-coloured legs",
    "beak": "a {c}-coloured beak",
}
SHAPE_DESCRIPTORS: dict[tuple[str, str], str] = {
    ("wing", "plain"): "wings of one plain colour",
    ("wing", "barred"): "wings marked with bars",
    ("wing", "spotted"): "wings marked with spots",
    ("wing", "edged"): "wings with a contrasting edge",
    ("beak_shape", "conical"): "a short and conical beak",
    ("beak_shape", "straight"): "a long and straight beak",
    ("beak_shape", "hooked"): "a beak with a hooked tip",
    ("beak_shape", "curved"): "a long and curved beak",
    ("tail_length", "short"): "a rather short tail",
    ("tail_length", "long"): "a rather long tail",
    ("family", "finch"): "the build of a finch",
    ("family", "wader"): "the build of a wader",
    ("family", "parrot"): "the build of a parrot",
    ("family", "swallow"): "the build of a swallow",
}

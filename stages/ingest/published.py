"""Keys of published description files that differ from the names that the readers give.

The files are those of CuPL, AttrVR, CLIP-D, WaffleCLIP, WCA and BiFTA. Case, separators and the order of words make no
difference to `refine`, so only other words are listed. Places365's keys follow from its list of categories.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

Keys = Mapping[str, Sequence[str]]

IMAGENET: Keys = {
    # Two pairs of classes share one name in most files. Classification by description uses other names for two classes.
    "projectile": ["missile"],
    "sunglass": ["sunglasses"],
    "newt": ["eft"],
    "tights": ["maillot"],
}

CALTECH101: Keys = {
    "off-center face": ["face"],
    "centered face": ["face"],
    "car side": ["side of a car"],
    "cougar body": ["body of a cougar cat"],
    "cougar face": ["face of a cougar cat"],
    "crocodile head": ["head of a crocodile"],
    "flamingo head": ["head of a flamingo"],
    "snoopy": ["snoopy (cartoon beagle)"],
    "yin yang": ["yin and yang symbol"],
}

EUROSAT: Keys = {
    "herbaceous vegetation": ["herbaceous vegetation land", "brushland or shrubland"],
    "industrial buildings": ["industrial buildings or commercial buildings"],
    "residential buildings": ["residential buildings or homes or apartments"],
}

FLOWERS102: Keys = {
    "pink-yellow dahlia?": ["pink and yellow dahlia"],
    "ball moss": ["air plant"],
    "lotus": ["lotus lotus"],
}

PLACES365: Keys = {"arcade": ["arcade (passageway)"], "lock chamber": ["lock chamber (canal)"]}

UCF101: Keys = {"handstand pushups": ["hand stand pushups"]}

STANFORD_CARS: Keys = {"Ram C/V Cargo Van Minivan 2012": ["Ram CV Cargo Van Minivan 2012"]}

"""Configuration is checked at the door: file, key, what was found, what is allowed."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from dhs_gen.domain_randomization import ArtifactConfig
from dhs_pipeline.config import (
    ArtifactProfile,
    Compact,
    ConfigError,
    Cosmology,
    Generation,
    HostCuts,
    Mass,
    Mixture,
    Pairing,
    ParentColumns,
    Priors,
    Rendering,
    Subhalos,
    Survey,
    conf_root,
    config_hash,
    load_run_config,
    load_section,
)

SECTIONS = {
    "survey": Survey,
    "parent": ParentColumns,
    "hosts": HostCuts,
    "priors": Priors,
    "rendering": Rendering,
    "generations": Generation,
    "compact": Compact,
    "artifacts": ArtifactProfile,
    "cosmology": Cosmology,
    "mass": Mass,
    "mixtures": Mixture,
    "subhalos": Subhalos,
    "pairing": Pairing,
}


@pytest.mark.parametrize("folder", SECTIONS)
def test_every_shipped_section_is_valid(folder: str) -> None:
    files = sorted((conf_root() / folder).glob("*.yaml"))
    assert files
    for file in files:
        assert load_section(SECTIONS[folder], folder, file.stem).name == file.stem


@pytest.mark.parametrize("design", ["small", "medium", "full", "sota", "halton", "population", "population_vdf"])
def test_every_shipped_design_is_valid(design: str) -> None:
    assert load_run_config("demo", [f"design={design}"]).design.name == design


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("manifest.replicate=2", ["demo.yaml", "manifest.replicate", "unknown key", "replicates"]),
        ("typo=1", ["demo.yaml", "typo", "unknown key", "experiment_id"]),
        ("survey.pixscale_arcsec=-1", ["dr10.yaml", "survey.pixscale_arcsec", "greater than 0", "-1"]),
        ("design.axes.theta_e=1", ["halton.yaml", "design.halton.axes.theta_e", "theta_e_arcsec"]),
        ("design=huge", ["design", "'huge'", "small", "sota"]),
        ("generations=[gen9]", ["generations", "'gen9'", "gen7"]),
        ("rendering.min_supersampling=4", ["default.yaml", "rendering", "odd"]),
        ("compact.split_fractions={train: 0.9, val: 0.1, test: 0.1}", ["split_fractions", "must be 1", "1.1"]),
        ("manifest.region_nside=48", ["power of two", "48"]),
        ("survey.moffat_beta={g: 3.0}", ["moffat_beta", "['r', 'z']"]),
        ("survey.bands=[g, r]", ["stamp.bandset", "['z']"]),
        ("nowhere.at.all=1", ["no section", "nowhere"]),
        ("manifest.replicates", ["key=value"]),
    ],
)
def test_mistakes_are_told_in_one_line(override: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        load_run_config("demo", [override])
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message


@pytest.mark.parametrize(
    ("name", "cosmic", "saturation", "background", "jitter"),
    [("none", 0, 0, 0, 0), ("mild", 0.10, 0.05, 0.01, 0.2), ("strong", 0.25, 0.15, 0.05, 0.5)],
)
def test_artifact_profiles_are_those_of_the_published_table(
    name: str, cosmic: float, saturation: float, background: float, jitter: float
) -> None:
    shipped = load_section(ArtifactProfile, "artifacts", name)
    found = (shipped.cosmic_rate, shipped.sat_rate, shipped.bg_plane_amp, shipped.jitter_sigma_pix)
    assert found == (cosmic, saturation, background, jitter)
    assert (shipped.strengths() is None) is (name == "none")


def test_an_artifact_profile_holds_every_strength() -> None:
    fields = {f.name for f in dataclasses.fields(ArtifactConfig)}
    assert set(ArtifactProfile.model_fields) == fields | {"name"}


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("cosmic_rate", "1.5", ["cosmic_rate", "less than or equal to 1", "1.5"]),
        ("cosmic_length_pix", "[24, 8]", ["cosmic_length_pix must satisfy", "(24.0, 8.0)"]),
        ("sat_ratte", "1", ["unknown key", "sat_rate"]),
    ],
)
def test_mistakes_in_an_artifact_profile_are_told(tmp_path: Path, key: str, value: str, words: list[str]) -> None:
    lines = (conf_root() / "artifacts" / "mild.yaml").read_text().splitlines()
    broken = tmp_path / "broken.yaml"
    broken.write_text("\n".join([line for line in lines if not line.startswith(f"{key}:")] + [f"{key}: {value}"]))
    with pytest.raises(ConfigError) as error:
        load_section(ArtifactProfile, "artifacts", str(broken))
    for word in ["broken.yaml", *words]:
        assert word in str(error.value)


@pytest.mark.parametrize(("name", "profile"), [("gen8a", "none"), ("gen8b", "mild"), ("gen8c", "strong")])
def test_gen8_is_gen5_with_artifacts(name: str, profile: str) -> None:
    gen5, gen8 = (load_section(Generation, "generations", n) for n in ("gen5", name))
    assert (gen8.source, gen8.arc, gen8.artifact_profile) == (gen5.source, gen5.arc, profile)


def test_missing_key_and_broken_yaml_name_the_file(tmp_path: Path) -> None:
    incomplete = tmp_path / "mine.yaml"
    incomplete.write_text("experiment_id: x\nsurvey: dr10\n")
    with pytest.raises(ConfigError, match=r"mine\.yaml: .* required"):
        load_run_config(str(incomplete))
    incomplete.write_text("a: [1,")
    with pytest.raises(ConfigError, match=r"mine\.yaml: not valid YAML"):
        load_run_config(str(incomplete))


def test_hash_depends_on_values_alone() -> None:
    same = config_hash(load_run_config("demo"))
    assert same == config_hash(load_run_config("demo", ["manifest.replicates=1"]))
    assert same != config_hash(load_run_config("demo", ["manifest.replicates=2"]))

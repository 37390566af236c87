"""What a user is told about a TOML file that is missing, malformed, or says what nobody knows."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from fedtl.errors import FedtlError, RecipeError, nearest


@dataclass(frozen=True, slots=True)
class TomlKind:
    """A kind of TOML file, and how its errors speak of it.

    Attributes
    ----------
    noun : str
        ``"recipe"``, as in "There is no recipe 'x'."
    model : type
        What its values must fit.
    absent : str
        What to do where there is none.
    look_up : str
        Where keys, defaults and meanings are listed.
    error : type
        Of its errors.
    """

    noun: str
    model: type[BaseModel]
    absent: str
    look_up: str
    error: type[FedtlError] = RecipeError

    def read(self, path: Path) -> dict[str, Any]:
        """Return the values of a file, not yet checked."""
        try:
            return tomllib.loads(path.read_text("utf-8"))
        except FileNotFoundError as error:
            raise self.error(f"There is no {self.noun} '{path}'.", next_step=self.absent) from error
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise self.error(
                f"{self.noun.capitalize()} '{path}' is not readable TOML: {error}.",
                next_step="Mend the file.",
            ) from error

    def explain(self, error: ValidationError, place: str) -> FedtlError:
        """Return the error for the first thing that is wrong with the values of a place."""
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        others = error.error_count() - 1
        more = f" ({others} more problems follow.)" if others else ""
        if first["type"] == "extra_forbidden":
            return self.error(
                f"'{where}' in {place} is unknown.{more}",
                next_step=nearest(str(first["loc"][-1]), known_keys(self.model, first["loc"][:-1])),
            )
        if first["type"] == "missing":
            return self.error(f"'{where}' is missing in {place}.{more}", next_step=self.look_up)
        if first["type"] == "literal_error":
            expected = str(first.get("ctx", {}).get("expected", ""))
            known = [part.strip(" '") for part in expected.replace(" or ", ",").split(",")]
            return self.error(
                f"{where} = {first['input']!r} in {place} is unknown.{more}",
                next_step=nearest(str(first["input"]), known),
            )
        return self.error(
            f"{where} = {first['input']!r} in {place}: {first['msg'].lower()}.{more}",
            next_step=f"Correct the value; {self.look_up}",
        )


def known_keys(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """Return the keys of the table at a location of a model; none where it is no table."""
    for part in location:
        field = model.model_fields.get(str(part))
        kinds = () if field is None else (field.annotation, *get_args(field.annotation))
        tables = [k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel)]
        if not tables:
            return []
        model = tables[0]
    return list(model.model_fields)


def resolve_path(values: dict[str, Any], dotted: str, folder: Path) -> None:
    """Let a relative path among the values of a file start at the file's own folder."""
    table, key = dotted.split(".")
    inner = values.get(table)
    if isinstance(inner, dict) and isinstance(inner.get(key), str) and inner[key]:
        value = inner[key]
        file = value.rpartition(":")[0] if ".py:" in value else value
        here = "/" in file or file.endswith((".csv", ".npz", ".safetensors", ".py"))
        if (here or (folder / file).is_dir()) and not Path(file).expanduser().is_absolute():
            inner[key] = str((folder / file).resolve()) + value[len(file) :]

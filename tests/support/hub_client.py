"""The real client of the Hub in processes of their own, which share one cache."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

FILES = {
    "config.json": b'{"kind": "mhvae"}',
    "vae.safetensors": os.urandom(200_000),
    "README.md": b"# a model\n",
    "pytorch_model.bin": b"\x80\x02pickled",
    "training/log.csv": b"epoch\n",
}
# A process of its own: the client reads its environment when it is imported.
CLIENT = """
import json, sys
from mhvae_cli.checkpoints import registry
from mhvae_cli.errors import ModelError
for call, ref, offline in json.load(sys.stdin):
    try:
        result = getattr(registry, call)(ref, offline=offline)
        print(json.dumps({"folder": str(result)} if call == "resolve" else {"tensors": sorted(result)}))
    except ModelError as error:
        print(json.dumps({"error": str(error), "hint": error.hint}))
"""


class Client:
    """Runs the real client in new processes that share one cache."""

    def __init__(self, url: str, home: Path) -> None:
        keep = {key: os.environ[key] for key in ("PATH", "SYSTEMROOT") if key in os.environ}
        self.env = {
            **keep,
            "HOME": str(home),
            "HF_HOME": str(home / "hf"),
            "HF_ENDPOINT": url,
            "NO_PROXY": "*",
        }

    def run(
        self, *refs: str, call: str = "resolve", offline: bool = False, **env: str
    ) -> list[dict[str, Any]]:
        done = subprocess.run(
            [sys.executable, "-c", CLIENT],
            input=json.dumps([(call, ref, offline) for ref in refs]),
            env={**self.env, **env},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        answers = [json.loads(line) for line in done.stdout.splitlines()]
        for answer in answers:
            if "error" in answer:
                assert "\n" not in answer["error"] and "\n" not in answer["hint"], answer
        return answers

    def fetch(self, ref: str, **options: Any) -> Path:
        (answer,) = self.run(ref, **options)
        assert "folder" in answer, answer
        return Path(answer["folder"])

    def fail(self, ref: str, **options: Any) -> tuple[str, str]:
        (answer,) = self.run(ref, **options)
        assert "error" in answer, answer
        return answer["error"], answer["hint"]

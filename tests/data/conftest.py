import os
from collections.abc import Callable, Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from PIL import Image

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def write_pairs() -> Callable[..., Path]:
    """Write an image and a binary mask of each name below `root`."""

    def write(root: Path, names: Iterable[str], images: str = "images", masks: str = "masks") -> Path:
        for number, name in enumerate(names):
            random = np.random.default_rng(number)
            picture = random.integers(0, 256, (12, 16, 3), dtype=np.uint8)
            mask = np.zeros((12, 16), dtype=np.uint8)
            mask[: number % 11 + 1] = 255
            for folder, pixels in ((images, picture), (masks, mask)):
                (root / folder).mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(root / folder / f"{name}.png")
        return root

    return write


@pytest.fixture
def kvasir_root() -> Path:
    """The real Kvasir-SEG, where it is there."""
    data = Path(os.environ.get("SEG_PRUNING_DATA", REPOSITORY.parent / "shared" / "data"))
    if not (data / "kvasir_seg" / "images").is_dir():
        pytest.skip("no kvasir_seg/ in the folder of SEG_PRUNING_DATA")
    return data / "kvasir_seg"


@pytest.fixture
def serve():
    """Serve bytes on the loopback address, and say that there are `missing` more of them."""
    servers = []

    def start(content, missing=0):
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200 if self.path == "/set.zip" else 404)
                self.send_header("Content-Length", str(len(content) + missing))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *args):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/set.zip"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()

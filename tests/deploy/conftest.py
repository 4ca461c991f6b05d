import pytest
from support.deployed import Deployed, deployed


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Deployed:
    """A data set with a store; runs are trained as tests ask for them."""
    return deployed(tmp_path_factory.mktemp("deployed"))

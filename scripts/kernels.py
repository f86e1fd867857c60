"""Kernels that are there at once: forked from a process that has imported what most notebooks import first.

The modules of the house are not among that: a notebook's own are as it finds them.
"""

import contextlib, multiprocessing, os, sys
from multiprocessing import forkserver
from pathlib import Path
from jupyter_client.provisioning import LocalProvisioner

HERE = Path(__file__).resolve().parent
OURS = {str(HERE), str(HERE.parent / 'tests')}  # on the path of the tests, not on a notebook's
DEAR = [
    *('ipykernel.kernelapp', 'ipykernel.ipkernel', 'matplotlib.pyplot', 'anywidget', 'pandas'),
    *('torch', 'torch._dynamo', 'scipy.stats', 'mlflow', 'mlflow.store.tracking.sqlalchemy_store'),
]  # torch imports its _dynamo at the first step of an optimizer; 10 seconds together
fork = multiprocessing.get_context('forkserver')


def kernel(arguments: list[str], folder: str, env: dict[str, str]):
    "A forked process becomes the kernel that these arguments of `ipykernel_launcher` mean."
    import numpy, torch

    os.setsid()
    os.chdir(folder)
    multiprocessing.current_process().daemon = False  # it may have children
    numpy.random.seed(), torch.seed()  # as fresh as those of a new Python
    os.environ.clear()
    os.environ.update(env, JPY_PARENT_PID=str(os.getppid()))
    sys.argv = ['ipykernel_launcher.py', *arguments]
    sys.path[:] = [place for place in sys.path if place not in OURS]
    from ipykernel.kernelapp import launch_new_instance

    launch_new_instance(argv=arguments)
    os._exit(0)


class Forked:
    "A forked kernel as a `subprocess.Popen`, as far as a provisioner asks."

    stdin = stdout = stderr = None

    def __init__(self, *task):
        self.process = fork.Process(target=kernel, args=task, daemon=True)
        self.process.start()
        self.pid = self.process.pid

    def poll(self) -> int | None:
        return self.process.exitcode

    def wait(self) -> int:
        self.process.join()
        return self.process.exitcode

    def send_signal(self, number: int):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)


class Provisioner(LocalProvisioner):
    async def launch_kernel(self, cmd: list[str], **kwargs):
        arguments = cmd[cmd.index('ipykernel_launcher') + 1 :]
        self.process = Forked(arguments, kwargs['cwd'], kwargs['env'])
        self.pid = self.process.pid
        return self.connection_info


def forked_kernels(plain: type, env: dict[str, str]) -> type:
    "A kernel manager like `plain`, whose kernels are forked; `env` is what the dear modules are imported in."
    from wysiwyg.executors import environment

    fork.set_forkserver_preload(DEAR)
    with environment(**env):
        forkserver.ensure_running()

    class Manager(plain):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.provisioner = Provisioner(kernel_id='', kernel_spec=self.kernel_spec, parent=self)

    return Manager

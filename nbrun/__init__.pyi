from nbrun.api.functions import plan as plan
from nbrun.api.functions import prepare as prepare
from nbrun.api.functions import run as run
from nbrun.api.functions import run_async as run_async
from nbrun.api.functions import run_many as run_many
from nbrun.api.functions import run_many_async as run_many_async
from nbrun.api.notebooks import NotebookPath as NotebookPath
from nbrun.api.notebooks import Source as Source
from nbrun.api.servers import Server as Server
from nbrun.api.servers import SyncServer as SyncServer
from nbrun.api.servers import connect as connect
from nbrun.api.servers import private_server as private_server
from nbrun.core.batch.terms import Override as Override
from nbrun.core.delivery.loss_mark import Incomplete as Incomplete
from nbrun.core.events import BatchFinished as BatchFinished
from nbrun.core.events import BatchStarted as BatchStarted
from nbrun.core.events import CellFinished as CellFinished
from nbrun.core.events import CellStarted as CellStarted
from nbrun.core.events import Event as Event
from nbrun.core.events import Observer as Observer
from nbrun.core.events import OutputArrived as OutputArrived
from nbrun.core.events import RunFinished as RunFinished
from nbrun.core.events import Stage as Stage
from nbrun.core.events import StageEntered as StageEntered
from nbrun.core.events import Warned as Warned
from nbrun.core.outputs.limit import Truncated as Truncated
from nbrun.core.parameters.declarations import Declaration as Declaration
from nbrun.core.parameters.literals.base import LiteralWriter as LiteralWriter
from nbrun.core.planning.plan import Action as Action
from nbrun.core.planning.plan import CellPlan as CellPlan
from nbrun.core.planning.preview import Preview as Preview
from nbrun.core.protocol.handshake import KernelInfo as KernelInfo
from nbrun.core.protocol.messages import Message as Message
from nbrun.core.results import Attempt as Attempt
from nbrun.core.results import BatchFailed as BatchFailed
from nbrun.core.results import BatchResult as BatchResult
from nbrun.core.results import CellError as CellError
from nbrun.core.results import CellFailed as CellFailed
from nbrun.core.results import CellOutcome as CellOutcome
from nbrun.core.results import CellResult as CellResult
from nbrun.core.results import NotebookResult as NotebookResult
from nbrun.core.results import Outcome as Outcome
from nbrun.core.results import Problem as Problem
from nbrun.core.results import RunFailed as RunFailed
from nbrun.errors import AccessDenied as AccessDenied
from nbrun.errors import BadFrame as BadFrame
from nbrun.errors import ExitCode as ExitCode
from nbrun.errors import KernelDied as KernelDied
from nbrun.errors import KernelError as KernelError
from nbrun.errors import KernelNotLaunched as KernelNotLaunched
from nbrun.errors import KernelStartFailed as KernelStartFailed
from nbrun.errors import NbrunError as NbrunError
from nbrun.errors import NoSuchKernel as NoSuchKernel
from nbrun.errors import NoSuchNotebook as NoSuchNotebook
from nbrun.errors import NotAJupyterServer as NotAJupyterServer
from nbrun.errors import NotANotebook as NotANotebook
from nbrun.errors import NotFound as NotFound
from nbrun.errors import PrivateServerEnded as PrivateServerEnded
from nbrun.errors import RequestRefused as RequestRefused
from nbrun.errors import ResponseTooLarge as ResponseTooLarge
from nbrun.errors import SaveFailed as SaveFailed
from nbrun.errors import ServerError as ServerError
from nbrun.errors import ServerRestarted as ServerRestarted
from nbrun.errors import ServerUnreachable as ServerUnreachable
from nbrun.errors import Throttled as Throttled
from nbrun.errors import TooLarge as TooLarge
from nbrun.errors import UsageError as UsageError
from nbrun.jupyter.client import Client as Client
from nbrun.jupyter.client import Identity as Identity
from nbrun.jupyter.client import ServerStatus as ServerStatus
from nbrun.jupyter.contents import Checkpoint as Checkpoint
from nbrun.jupyter.contents import Contents as Contents
from nbrun.jupyter.contents import ContentsModel as ContentsModel
from nbrun.jupyter.endpoint import Endpoint as Endpoint
from nbrun.jupyter.kernel.driver import Kernel as Kernel
from nbrun.jupyter.kernelspecs import KernelSpec as KernelSpec
from nbrun.jupyter.kernelspecs import KernelSpecs as KernelSpecs
from nbrun.jupyter.sessions import KernelModel as KernelModel
from nbrun.jupyter.sessions import Kernels as Kernels
from nbrun.jupyter.sessions import SessionModel as SessionModel
from nbrun.jupyter.sessions import Sessions as Sessions
from nbrun.runner.job import BatchOptions as BatchOptions
from nbrun.runner.job import RunOptions as RunOptions
from nbrun.runner.stop import StopSwitch as StopSwitch
from nbrun.version import __version__ as __version__

__all__ = [
    "AccessDenied",
    "Action",
    "Attempt",
    "BadFrame",
    "BatchFailed",
    "BatchFinished",
    "BatchOptions",
    "BatchResult",
    "BatchStarted",
    "CellError",
    "CellFailed",
    "CellFinished",
    "CellOutcome",
    "CellPlan",
    "CellResult",
    "CellStarted",
    "Checkpoint",
    "Client",
    "Contents",
    "ContentsModel",
    "Declaration",
    "Endpoint",
    "Event",
    "ExitCode",
    "Identity",
    "Incomplete",
    "Kernel",
    "KernelDied",
    "KernelError",
    "KernelInfo",
    "KernelModel",
    "KernelNotLaunched",
    "KernelSpec",
    "KernelSpecs",
    "KernelStartFailed",
    "Kernels",
    "LiteralWriter",
    "Message",
    "NbrunError",
    "NoSuchKernel",
    "NoSuchNotebook",
    "NotAJupyterServer",
    "NotANotebook",
    "NotFound",
    "NotebookPath",
    "NotebookResult",
    "Observer",
    "Outcome",
    "OutputArrived",
    "Override",
    "Preview",
    "PrivateServerEnded",
    "Problem",
    "RequestRefused",
    "ResponseTooLarge",
    "RunFailed",
    "RunFinished",
    "RunOptions",
    "SaveFailed",
    "Server",
    "ServerError",
    "ServerRestarted",
    "ServerStatus",
    "ServerUnreachable",
    "SessionModel",
    "Sessions",
    "Source",
    "Stage",
    "StageEntered",
    "StopSwitch",
    "SyncServer",
    "Throttled",
    "TooLarge",
    "Truncated",
    "UsageError",
    "Warned",
    "__version__",
    "connect",
    "plan",
    "prepare",
    "private_server",
    "run",
    "run_async",
    "run_many",
    "run_many_async",
]

"""Reserved words of each language, which cannot be names of parameters.

Sources: each language's reference (Python's keyword list, R's ``?Reserved``, the ECMAScript specification, the manuals
of Julia, Bash, MATLAB and Octave, the grammars of Scala, C#, F#, Rust and Go, PowerShell's automatic variables). For
Bash, the list contains variables that the shell uses itself. Assigning them fails, has no effect, or breaks the
kernel's prompt.
"""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


R = _words(
    "if else repeat while function for next break TRUE FALSE NULL Inf NaN NA NA_integer_ NA_real_ NA_complex_ "
    "NA_character_ in"
)
JULIA = _words(
    "baremodule begin break catch const continue do else elseif end export false finally for function global if "
    "import let local macro module quote return struct true try using while"
)
SCALA = _words(
    "_ abstract case catch class def do else enum export extends false final finally for forSome given if "
    "implicit import lazy macro match new null object override package private protected return sealed super then "
    "this throw trait true try type val var while with yield"
)
BASH = _words(
    "_ BASHOPTS BASHPID BASH_ARGC BASH_ARGV BASH_COMMAND BASH_LINENO BASH_SOURCE BASH_SUBSHELL BASH_VERSINFO "
    "DIRSTACK EPOCHREALTIME EPOCHSECONDS EUID FUNCNAME GROUPS LINENO PPID PROMPT_COMMAND PS0 PS1 PS2 RANDOM "
    "SECONDS SHELLOPTS SRANDOM UID"
)
JAVASCRIPT = _words(
    "await break case catch class const continue debugger default delete do else enum export extends false "
    "finally for function if import in instanceof new null return super switch this throw true try typeof var "
    "void while with undefined NaN Infinity"
)
JAVASCRIPT_STRICT = _words("arguments eval implements interface let package private protected public static yield")
"""Reserved in modules and TypeScript, allowed elsewhere."""
CSHARP = _words(
    "_ abstract as base bool break byte case catch char checked class const continue decimal default delegate do "
    "double else enum event explicit extern false finally fixed float for foreach goto if implicit in int "
    "interface internal is lock long namespace new null object operator out override params private protected "
    "public readonly ref return sbyte sealed short sizeof stackalloc static string struct switch this throw true "
    "try typeof uint ulong unchecked unsafe ushort using virtual void volatile while"
)
FSHARP = _words(
    "_ abstract and as asr assert base begin break checked class component const constraint continue default "
    "delegate do done downcast downto elif else end event exception extern external false finally fixed for fun "
    "function global if in include inherit inline interface internal land lazy let lor lsl lsr lxor match member "
    "mixin mod module mutable namespace new null of open or override parallel private process protected public "
    "pure rec return sealed sig static struct tailcall then to trait true try type upcast use val virtual void "
    "when while with yield"
)
POWERSHELL = _words(
    "_ args enabledexperimentalfeatures error executioncontext false home host input iscoreclr islinux ismacos "
    "iswindows null pid psculture psedition pshome psitem psuiculture psversiontable shellid this true"
)
"""In lower case, because names of variables are case-insensitive."""
MATLAB = _words(
    "break case catch classdef continue else elseif end for function global if otherwise parfor persistent return "
    "spmd switch try while"
)
OCTAVE = _words(
    "__FILE__ __LINE__ break case catch classdef continue do else elseif end end_try_catch end_unwind_protect "
    "endarguments endclassdef endenumeration endevents endfor endfunction endif endmethods endparfor endproperties "
    "endspmd endswitch endwhile for function global if otherwise parfor persistent return spmd switch try until "
    "unwind_protect unwind_protect_cleanup while"
)
RUST = _words(
    "Self _ abstract as async await become box break const continue crate do dyn else enum extern false final fn "
    "for gen if impl in let loop macro match mod move mut override priv pub ref return self static struct super "
    "trait true try type typeof unsafe unsized use virtual where while yield"
)
GO = _words(
    "_ break case chan const continue default defer else fallthrough for func go goto if import init interface "
    "main map package range return select struct switch type var"
)

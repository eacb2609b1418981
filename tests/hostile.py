# ruff: noqa: E501
"""Texts that try to run, to break a layout, or to look like something else: 200 of them."""

SCRIPTS = [
    "<script>window.hit = 1</script>", "</script><script>window.hit = 1</script>", "<img src=x onerror=\"window.hit = 1\">",
    "<svg onload=window.hit=1>", "\" onmouseover=\"window.hit = 1", "' autofocus onfocus='window.hit = 1",
    "<iframe srcdoc='<script>parent.hit = 1</script>'>", "<a href='javascript:window.hit=1'>x</a>", "javascript:window.hit=1",
    "<!-- <script>window.hit = 1</script> -->", "--><script>window.hit = 1</script>", "<style>body { display: none }</style>",
    "</style><script>window.hit = 1</script>", "</title><script>window.hit = 1</script>", "</textarea><script>window.hit=1</script>",
    "<base href='https://evil.example/'>", "<meta http-equiv=refresh content='0;url=https://evil.example/'>",
    "<form action='https://evil.example/'><input autofocus onfocus=window.hit=1>", "<details open ontoggle=window.hit=1>",
    "<math><mtext></mtext><script>window.hit=1</script></math>", "{{ 7 * 7 }}", "{% raw %}{{ config }}{% endraw %}",
    "{# comment #}", "]]><script>window.hit = 1</script>", "&lt;script&gt;window.hit = 1&lt;/script&gt;",
    "<scr\x00ipt>window.hit = 1</script>", "<template><script>window.hit=1</script></template>", "</svg><script>window.hit=1</script>",
]  # fmt: skip
SHAPES = [
    "\u202ereversed\u202c", "\u2066isolate\u2069", "\u200fright\u200e", "\x1b[31mred\x1b[0m", "\x1b]8;;http://evil.example\x07x\x1b]8;;\x07",
    "\x1b[2J\x1b[H", "\x07\x08\x0b\x0c\x7f", "\r\noverwritten\r", "a\u2028b\u2029c\x85d", "\ufeff\ufffe\uffff", "\ud800 lone",
    "\U000e0041\U000e0042", "Z̷̢̛̲̺a̶l̵g̶o̷" * 30, "𒐫" * 40, "W" * 4_000, "\t" * 300, " " * 5_000, "\n" * 2_000, "a" * 1_000_000,
    "word " * 200_000, "|a|b|\n|-|-|\n|c|d|", "# head\n\n> quote\n\n```\ncode", "![x](https://evil.example/x.png)", "[x](javascript:window.hit=1)",
    "FINAL({\"domain\": \"none\"})", "O1\n[{\"prompt\": \"<script>window.hit=1</script>\", \"base\": \"b\", \"finetuned\": \"f\"}]", "",
]  # fmt: skip
TEXTS = [*SCRIPTS, *SHAPES, *(f"{shape[:300]}{script}" for shape in SHAPES[:10] for script in SCRIPTS[:15])][:200]

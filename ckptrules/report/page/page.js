"use strict";
(async () => {
  const $ = (id) => document.getElementById(id);
  const svgNames = document.querySelector("svg").namespaceURI;
  const states = { stays: ["✓", "stays"], goes: ["⊗", "goes"], undecided: ["?", "needs you"] };
  const words = JSON.parse(document.body.dataset.words);

  // All content is made of elements and text, so that no name is parsed as markup.
  const make = (tag, attributes, ...inside) => fill(document.createElement(tag), attributes, inside);
  const draw = (tag, attributes, ...inside) => fill(document.createElementNS(svgNames, tag), attributes, inside);
  function fill(element, attributes, inside) {
    for (const [key, value] of Object.entries(attributes || {})) element.setAttribute(key, value);
    element.append(...inside);
    return element;
  }

  // The same as `visible` and `human_size` of engine/measures.py, and `quoted` of run/hints.py.
  const unseen = /[\p{C}\p{Zl}\p{Zp}]|(?! )\p{Zs}/u;
  function escaped(letter) {
    const code = letter.codePointAt(0);
    const hex = (digits, of) => of.toString(16).padStart(digits, "0");
    if (code >= 0xdc80 && code <= 0xdcff) return "\\x" + hex(2, code - 0xdc00);
    const short = { "\t": "\\t", "\n": "\\n", "\r": "\\r" }[letter];
    return short || (code < 0x100 ? "\\x" + hex(2, code) : code < 0x10000 ? "\\u" + hex(4, code) : "\\U" + hex(8, code));
  }
  const seen = (text) => (unseen.test(text) ? [...text].map((one) => (unseen.test(one) ? escaped(one) : one)).join("") : text);
  const breaking = (text) => seen(text).split(/(?<=[-_\/])/).flatMap((piece) => [piece, make("wbr")]).slice(0, -1);
  function quoted(word) {
    if (/^[\p{L}\p{N}@%+=:,./_-]+$/u.test(word)) return word;
    if (!unseen.test(word) && !word.includes("`")) return "'" + word.replaceAll("'", "'\"'\"'") + "'";
    const bytes = (letter) => {
      const code = letter.codePointAt(0);
      const all = code >= 0xdc80 && code <= 0xdcff ? [code - 0xdc00] : [...new TextEncoder().encode(letter)];
      return all.map((byte) => "\\x" + byte.toString(16).padStart(2, "0")).join("");
    };
    return "$'" + [...word].map((one) => (/[ -&(-[\]-_a-~]/.test(one) ? one : bytes(one))).join("") + "'";
  }
  function size(bytes) {
    let value = bytes, unit = 0;
    while (value >= 999.5 && unit < 5) { value /= 1000; unit += 1; }
    return (unit ? Number(value.toPrecision(3)) : bytes) + "\u202f" + ["B", "KB", "MB", "GB", "TB", "PB"][unit];
  }
  const count = (number) => String(number).replace(/\B(?=(\d{3})+$)/g, "\u202f");
  const several = (number, noun) => count(number) + "\u00a0" + noun + (number === 1 ? "" : "s");

  document.documentElement.classList.add("scripted");
  for (const button of document.querySelectorAll(".copy[data-text]")) button.addEventListener("click", () => copy(button, button.dataset.text));
  async function copy(button, text) {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const area = document.body.appendChild(make("textarea", { "aria-hidden": "true" }));
      area.value = text;
      area.select();
      document.execCommand("copy");
      area.remove();
      button.focus();
    }
    const before = button.firstChild.data;
    button.firstChild.data = "Copied";
    setTimeout(() => { button.firstChild.data = before; }, 1500);
  }

  let json, data;
  try {
    const bytes = Uint8Array.from(atob(JSON.parse($("data").textContent).json), (letter) => letter.charCodeAt(0));
    json = await new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
    data = JSON.parse(json);
  } catch {
    document.documentElement.classList.add("unread");
    return;
  }
  $("copy-json").addEventListener("click", () => copy($("copy-json"), json));
  $("save").addEventListener("click", () => {
    const link = make("a", { download: data.command + ".json" });
    link.href = URL.createObjectURL(new Blob([json]));
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });

  const zone = /[+-]\d{4}$/.exec(data.when)?.[0] ?? "+0000";
  const ahead = (zone[0] === "-" ? -1 : 1) * (60 * zone.slice(1, 3) + +zone.slice(3)) * 60_000;
  const when = (ns) => (ns === null ? "" : new Date(ns / 1e6 + ahead).toISOString().slice(0, 16).replace("T", " "));
  data.experiments ??= [];
  for (const one of data.experiments) for (const row of one.checkpoints ?? (one.checkpoints = [])) whole(row, one);
  const rows = data.experiments.flatMap((one) => one.checkpoints);
  // The JSON of `verify` has fewer fields, and its own one for whether a checkpoint is sound.
  function whole(row, home) {
    if (row.state === undefined) row.state = row.verified ? "stays" : "undecided";
    if (row.verified === true) row.verified = "whole";
    for (const [name, value] of Object.entries({ fields: {}, metrics: {}, reasons: [], whole: true, time_ns: null, files: 1, home })) row[name] ??= value;
  }
  const number = (row) => row.fields[row.home.number] ?? row.fields.step ?? row.fields.epoch ?? row.fields.number ?? null;
  const metric = (row) => (row.home.metric ? row.metrics[row.home.metric.name] ?? null : null);
  const tags = (row) => [
    row.best && "◆ best", row.last && "■ last", row.pinned && "pinned", row.protected && "protected",
    row.verified === "whole" && "◎ verified", row.verified === "broken" && "broken", !row.whole && "✕ unfinished",
    row.files > 1 && row.files + " files",
  ].filter(Boolean);
  const why = (row) => row.reasons.map((reason) => reason.text).join("; ");
  const short = (value) => (typeof value === "number" ? String(Number(value.toPrecision(6))) : seen(String(value)));
  const same = (values) => (new Set(values).size === 1 ? values[0] : null);
  const metricName = same(data.experiments.flatMap((one) => (one.metric ? [seen(one.metric.name)] : [])));
  const numberName = same(data.experiments.flatMap((one) => (one.number ? [seen(one.number)] : [])));
  const written = "written (" + zone + ")";

  const columns = [
    { title: "name", key: (row) => row.name, cell: (row) => named(row), kind: "label named", header: true },
    { title: "experiment", key: (row) => row.home.experiment, cell: (row) => breaking(row.home.experiment), kind: "label" },
    { title: "why", key: why, cell: (row) => row.reasons.map((one) => make("p", {}, seen(one.text), ...(one.rule ? [" ", make("span", { class: "rule" }, ...breaking(one.rule))] : []))), kind: "why" },
    { title: numberName ?? "number", key: number, cell: (row) => [number(row) === null ? "" : (numberName || !row.home.number ? "" : seen(row.home.number) + " ") + count(number(row))], kind: "number" },
    { title: metricName ?? "metric", key: metric, cell: (row) => [metric(row) === null ? "" : (metricName ? "" : seen(row.home.metric.name) + " ") + short(metric(row))], kind: "number" },
    { title: "size", key: (row) => row.bytes, cell: (row) => [size(row.bytes)], kind: "number", down: true },
    { title: written, key: (row) => row.time_ns, cell: (row) => [when(row.time_ns)], kind: "number", down: true },
  ].filter((column) => column.header || rows.some((row) => column.key(row) !== null && column.key(row) !== ""));
  function named(row) {
    const [sign, word] = states[row.state] ?? ["", row.state];
    const text = make("code", { class: row.name.length > 44 ? "long" : "short" }, ...breaking(row.name));
    const more = tags(row).join(" · ");
    if (row.becomes) text.append(make("small", {}, "→ ", ...breaking(row.becomes)));
    const state = [make("span", { class: "sign s-" + row.state, "aria-hidden": "true" }, sign), make("span", { class: "word" }, (words[row.state] ?? word) + " ")];
    return [...state, text, ...(more ? [make("small", { class: "tags" }, more)] : [])];
  }
  const cells = (row, some) => some.map((column) => make(column.header ? "th" : "td", { class: column.kind, ...(column.header ? { scope: "row" } : {}) }, ...column.cell(row)));

  // Experiments: the curve and the table of an experiment are drawn when it is opened.
  const atMost = 200;
  for (const details of document.querySelectorAll("details[data-index]")) {
    const open = () => {
      if (!details.open || details.dataset.drawn) return;
      details.dataset.drawn = "1";
      const one = data.experiments[details.dataset.index], inside = details.querySelector(".inside");
      if (!one.checkpoints.length) return;
      inside.append(...[caption(one)].filter(Boolean), curve(one, Math.max(280, inside.clientWidth)), key(one));
      const some = columns.filter((column) => column.title !== "experiment" && (column.title !== (metricName ?? "metric") || one.metric));
      const head = make("tr", {}, ...some.map((column) => make("th", { scope: "col", class: column.kind }, column.title)));
      const body = one.checkpoints.slice(-atMost).reverse().map((row) => make("tr", {}, ...cells(row, some)));
      inside.append(make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Checkpoints of " + seen(one.experiment) }, make("table", { "aria-label": "Checkpoints of " + seen(one.experiment) }, make("thead", {}, head), make("tbody", {}, ...body))));
      if (one.checkpoints.length > atMost) inside.append(make("p", { class: "quiet" }, "The last " + atMost + " of " + count(one.checkpoints.length) + "; all of them stand below, in Checkpoints."));
    };
    details.addEventListener("toggle", open);
    open();
  }

  function mark(row, x, y, radius = 4) {
    const box = (r, kind) => draw("rect", { class: kind, x: x - r, y: y - r, width: 2 * r, height: 2 * r });
    const shapes = [draw("circle", { class: "m-" + row.state, cx: x, cy: y, r: radius })];
    if (row.verified === "whole") shapes.push(draw("circle", { class: "m-verified", cx: x, cy: y, r: radius + 3 }));
    if (row.best) shapes.push(draw("path", { class: "m-best", d: `M${x} ${y - 10}l10 10l-10 10l-10 -10z` }));
    if (row.last) shapes.push(box(radius + (row.best ? 8 : 4), "m-last"));
    if (!row.whole) shapes.push(draw("path", { class: "m-unfinished", d: `M${x - 6} ${y - 6}l12 12m0 -12l-12 12` }));
    const facts = [row.name, words[row.state], ...tags(row), metric(row) === null ? "" : row.home.metric.name + " " + metric(row), size(row.bytes), why(row)];
    return draw("g", {}, draw("title", {}, seen(facts.filter(Boolean).join(" · "))), ...shapes);
  }

  const ends = (values) => values.reduce(([low, high], value) => [Math.min(low, value), Math.max(high, value)], [Infinity, -Infinity]);
  const measured = (one) => one.checkpoints.filter((row) => typeof number(row) === "number" && metric(row) !== null);
  function caption(one) {
    const points = measured(one);
    if (points.length < 2) return null;
    const better = one.metric.mode === "max" ? " (higher is better), " : " (lower is better), ";
    return make("p", { class: "note" }, make("code", {}, ...breaking(one.metric.name)), better + ends(points.map(metric)).map(short).join(" to ") + ", over " + seen(one.number ?? "number"));
  }
  function curve(one, width) {
    const left = 8, right = width - 8, points = measured(one);
    const timed = one.checkpoints.filter((row) => row.time_ns !== null);
    const high = points.length > 1 ? 160 : 0, height = high + 64;
    const span = ([low, top], from, to) => (value) => Math.round((from + ((value - low) / (top - low || 1)) * (to - from)) * 10) / 10;
    const picture = draw("svg", { class: "chart", role: "img", viewBox: `0 0 ${width} ${height}`, "aria-label": spoken(one) });
    const text = (x, y, words, anchor, kind) => draw("text", { x, y, "text-anchor": anchor, class: kind ?? "" }, words);
    if (high) {
      const values = ends(points.map(metric)), numbers = ends(points.map(number));
      const x = span(numbers, left + 12, right - 12), y = span(values, high - 40, 24);
      const turn = one.metric.mode === "max" ? -1 : 1;
      const [best] = points.filter((row) => row.best).sort((a, b) => turn * (metric(a) - metric(b)));
      picture.append(
        draw("line", { x1: left, x2: right, y1: high - 20, y2: high - 20 }),
        text(left, high - 4, seen(one.number ?? "number") + " " + count(numbers[0]), "start"),
        text(right, high - 4, count(numbers[1]), "end"),
        draw("path", { class: "path", d: "M" + points.map((row) => x(number(row)) + " " + y(metric(row))).join("L") }),
        ...marked(points).map((row) => mark(row, x(number(row)), y(metric(row)))),
      );
      if (best) {
        const at = x(number(best)), above = y(metric(best)) > 60;
        picture.append(text(at, y(metric(best)) + (above ? -16 : 26), "best " + short(metric(best)), at > width - 80 ? "end" : at < 80 ? "start" : "middle", "strong"));
      }
    }
    if (timed.length) {
      const times = ends(timed.map((row) => row.time_ns)), x = span(times, left + 12, right - 12);
      picture.append(
        draw("line", { x1: left, x2: right, y1: high + 24, y2: high + 24 }),
        ...marked(timed).map((row) => mark(row, x(row.time_ns), high + 24)),
        text(left, high + 52, when(times[0]), "start"),
        text(right, high + 52, when(times[1]) + " " + zone, "end"),
      );
    }
    return picture;
  }
  const many = 3000;
  const marked = (some) => (some.length > many ? some.filter((row) => row.state !== "goes" || row.best || row.last) : some);
  function spoken(one) {
    const stay = one.checkpoints.filter((row) => row.state === "stays").length;
    const best = one.checkpoints.find((row) => row.best);
    return several(one.checkpoints.length, "checkpoint") + " of " + seen(one.experiment) + ": " + stay + " stay" + (best ? "; the best is " + seen(best.name) : "") + ". The table below says the same.";
  }
  function key(one) {
    const facts = { state: "stays", whole: true, best: false, last: false, verified: null, name: "", reasons: [], home: one, bytes: 0, files: 1, metrics: {}, fields: {} };
    const shown = [
      [words.stays, {}, (row) => row.state === "stays"], [words.goes, { state: "goes" }, (row) => row.state === "goes"],
      ["needs you", { state: "undecided" }, (row) => row.state === "undecided"], ["best", { best: true }, (row) => row.best],
      ["last", { last: true }, (row) => row.last], ["verified", { verified: "whole" }, (row) => row.verified === "whole"],
      ["unfinished", { whole: false }, (row) => !row.whole],
    ].filter(([, , fits]) => one.checkpoints.some(fits));
    const items = shown.map(([word, given]) => make("li", {}, draw("svg", { viewBox: "0 0 24 24", "aria-hidden": "true" }, mark({ ...facts, ...given }, 12, 12)), word));
    if (one.checkpoints.length > many) items.push(make("li", {}, "so many: only what stays is marked"));
    return make("ul", { class: "key" }, ...items);
  }

  // Checkpoints: filter, sort, select, the sum, the commands.
  if (!$("table")) return;
  const page = 100, chosen = new Set();
  let sorted = { column: columns.find((column) => column.title === "size"), down: true }, limit = page, found = [];
  const show = () => document.querySelector('input[name="show"]:checked').value;
  function list() {
    const wanted = $("filter").value.toLowerCase().split(/\s+/).filter(Boolean), state = show();
    found = rows.filter((row) => {
      if (state !== "all" && row.state !== state) return false;
      if (!wanted.length) return true;
      row.text ??= [seen(row.name), seen(row.home.experiment), why(row), ...tags(row), row.pack ?? ""].join("\n").toLowerCase();
      return wanted.every((word) => row.text.includes(word));
    });
    const keys = new Map(found.map((row) => [row, sorted.column.key(row)])), turn = sorted.down ? -1 : 1;
    found.sort((one, other) => {
      const a = keys.get(one), b = keys.get(other);
      return a === b ? 0 : a === null ? 1 : b === null ? -1 : (a < b ? -1 : 1) * turn;
    });
    limit = page;
    put();
  }
  function put() {
    const some = found.slice(0, limit);
    $("table").tBodies[0].replaceChildren(...some.map((row) => {
      const box = make("input", { type: "checkbox", "aria-label": "select " + seen(row.name) });
      const line = make("tr", {}, make("td", {}, box), ...cells(row, columns));
      box.checked = chosen.has(row);
      line.classList.toggle("chosen", box.checked);
      box.addEventListener("change", () => {
        box.checked ? chosen.add(row) : chosen.delete(row);
        line.classList.toggle("chosen", box.checked);
        tell();
      });
      return line;
    }));
    const bytes = found.reduce((sum, row) => sum + row.bytes, 0);
    $("shown").textContent = several(found.length, "checkpoint") + ", " + size(bytes) + (some.length < found.length ? "; the first " + some.length + " are shown" : "");
    $("more").hidden = some.length >= found.length;
  }
  function heads() {
    const all = make("input", { type: "checkbox", "aria-label": "select all that the filter finds" });
    all.addEventListener("change", () => {
      for (const row of found) all.checked ? chosen.add(row) : chosen.delete(row);
      put();
      tell();
    });
    $("table").tHead.rows[0].replaceChildren(make("th", { scope: "col" }, all), ...columns.map((column) => {
      const here = column === sorted.column;
      const button = make("button", { type: "button" }, column.title + (here ? (sorted.down ? " ↓" : " ↑") : ""));
      button.addEventListener("click", () => {
        sorted = { column, down: here ? !sorted.down : Boolean(column.down) };
        heads();
        list();
        $("table").tHead.querySelectorAll("button")[columns.indexOf(column)].focus();
      });
      return make("th", { scope: "col", class: column.kind, ...(here ? { "aria-sort": sorted.down ? "descending" : "ascending" } : {}) }, button);
    }));
  }
  // Commands have the program and the options of the plan; else they would decide by other rules.
  const program = (data.does_it ?? data.what_if?.[0]?.command ?? "doit").split(" ")[0];
  const option = (name, usual) => [null, undefined, usual].includes(data.options[name]) ? "" : " " + name + "=" + quoted(String(data.options[name]));
  const where = option("outputs_dir", "outputs") + option("rules_dir", "rules");
  const decides = option("policy", "default") + option("keep_last") + option("keep_min_epoch");
  const path = (row) => [data.outputs_dir, row.home.directory, row.name].filter((part) => part && part !== ".").join("/");
  const lines = () => {
    const named = (task, more) => [...chosen].map((row) => program + " " + task + " name=" + quoted(path(row)) + more);
    if ($("action").value === "explain") return named("explain", decides + where);
    if ($("action").value === "pin") return named("pin", where);
    return [...new Set([...chosen].map((row) => row.home.experiment))].map((name) => data.does_it + " experiments=" + quoted(name));
  };
  if (!data.does_it || data.options.experiments) $("action").querySelector("[value=migrate]").remove();
  function tell() {
    $("chosen").hidden = !chosen.size;
    $("sum").textContent = several(chosen.size, "checkpoint") + " selected, " + size([...chosen].reduce((sum, row) => sum + row.bytes, 0)) + ".";
    $("commands").textContent = lines().join("\n");
  }
  let waiting;
  $("filter").addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(list, 60); });
  $("tools").addEventListener("submit", (event) => event.preventDefault());
  $("tools").addEventListener("change", (event) => { if (event.target.name === "show") list(); });
  $("more").addEventListener("click", () => { limit += page; put(); });
  $("action").addEventListener("change", tell);
  $("none").addEventListener("click", () => { chosen.clear(); put(); tell(); $("filter").focus(); });
  $("copy-commands").addEventListener("click", () => copy($("copy-commands"), lines().join("\n")));
  heads();
  list();
})().then(() => document.documentElement.classList.add("ready"));

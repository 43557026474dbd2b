"use strict";
// One page, no network: everything is in `data`. Names of the views are the words of the permalinks.
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const LEVELS = ["4K", "2M", "1G", "512G", "256T"];
const bytesOf = (level) => 4096 * 512 ** level;
const hex = (n) => "0x" + n.toString(16);
const words = (text) => String(text).replace(/[&<>"]/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[c]);
const time = (us) => (us >= 1e6 ? (us / 1e6).toFixed(3) + " s" : us >= 1e3 ? (us / 1e3).toFixed(3) + " ms" : us.toFixed(1) + " µs");
const gpaLink = (gpa) => `<a class="mono" href="#view=page&gpa=${hex(gpa)}">${hex(gpa)}</a>`;
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();

// --- What is where ------------------------------------------------------------------------------------------------
// Entries by level, then by their first address: a path from the root is one lookup a level.
const index = new Map();
for (const entry of data.entries) index.set((entry.shared ? "s" : "p") + entry.level + ":" + entry.gpa, entry);
const at = (gpa, level, shared) => index.get((shared ? "s" : "p") + level + ":" + Math.floor(gpa / bytesOf(level)) * bytesOf(level));
function pathTo(gpa, shared) {
  const path = [];
  for (let level = data.root_level; level >= 0; level--) {
    const entry = at(gpa, level, shared);
    if (entry) path.push(entry);
  }
  return path;
}
const leaves = data.entries.filter((e) => isLeaf(e)).sort((a, b) => a.gpa - b.gpa);
function isLeaf(entry) {
  return entry.shared ? entry.mirror.kind === "leaf" : (entry.mirror && entry.mirror.kind === "leaf") || (entry.sept && entry.sept.kind === "leaf");
}
/// The colour of an entry on the map.
function stateOf(entry) {
  if (differences(entry).size) return "differs";
  if (entry.shared) return "shared";
  const state = entry.sept ? entry.sept.state : "";
  if (/PENDING/.test(state)) return "pending";
  if (/BLOCKED/.test(state)) return "blocked";
  return ["mapped4", "mapped2", "mapped1"][entry.level] || "mapped1";
}
/// The rows of the three columns in which one says something else than another.
function differences(entry) {
  const rows = new Set();
  if (entry.shared) return rows;
  const { mirror, sept, pamt } = entry;
  if (!mirror || !sept) return rows.add("kind");
  if (mirror.kind !== sept.kind) rows.add("kind");
  if (mirror.page !== sept.page) rows.add("page");
  if (pamt) {
    if (pamt.type !== (sept.kind === "leaf" ? "REG" : "EPT")) rows.add("type");
    if (pamt.owner !== data.tdr) rows.add("owner");
    if (sept.kind === "leaf" && pamt.level !== entry.level) rows.add("size");
  } else rows.add("type");
  return rows;
}
/// Whether a call was answered by a no. An ACCEPT that left its guest for a page to be added was not answered.
const wasRefused = (c) => !c.ok && !c.left;
/// Calls about a page: those about any range that covers it.
const callsAbout = (gpa) => data.calls.filter((c) => c.gpa !== undefined && c.gpa <= gpa && gpa < c.gpa + bytesOf(c.level));

// --- What it means ------------------------------------------------------------------------------------------------
function explain(gpa, entry, calls) {
  const accepts = calls.filter((c) => c.guest && c.ok), faults = calls.filter((c) => c.exit);
  const out = [];
  if (!entry) {
    out.push("No page is mapped here.");
    if (!data.ranges.some(([from, to]) => from <= gpa && gpa < to)) out.push("The TD has no memory at this address: an access is a fault of the guest, or one to a device.");
  } else {
    if (differences(entry).size) out.push("Mirror, Secure EPT and PAMT do not agree: the host or the module is wrong.");
    const state = entry.sept ? entry.sept.state : "";
    if (/PENDING/.test(state)) {
      out.push("The host has added this page and the guest has not accepted it (TDG.MEM.PAGE.ACCEPT).");
      out.push(data.ve_disabled ? "An access before that ends the TD: its ATTRIBUTES have SEPT_VE_DISABLE." : "An access before that is a virtualization exception (#VE).");
    }
    if (/BLOCKED/.test(state)) out.push("The host has blocked this entry: an access leaves the guest until it is unblocked or removed.");
    if (!entry.shared && /^MAPPED/.test(state)) out.push(accepts.length ? "The guest has accepted this page and uses it." : "The page is in use; it was added before the TD was finalised, or its acceptance is older than what is recorded here.");
    if (entry.shared) out.push("The page is shared with the host: it has no entry in the Secure EPT, and nothing of it is protected.");
  }
  const refused = calls.filter((c) => wasRefused(c) && !c.exit);
  if (refused.length) out.push(`${refused.length} of the calls about it ${refused.length === 1 ? "was" : "were"} refused.`);
  if (faults.length) out.push(`vCPUs left the guest ${faults.length === 1 ? "once" : faults.length + " times"} because of this page.`);
  return out;
}

// --- Views --------------------------------------------------------------------------------------------------------
const state = { view: data.ending.died ? "end" : "map", gpa: null, shared: false, base: 0, size: 0, call: null };
function go(change) {
  const parts = new URLSearchParams();
  const next = { ...state, ...change };
  parts.set("view", next.view);
  if (next.view === "page" && next.gpa !== null) parts.set("gpa", hex(next.gpa));
  if (next.view === "page" && next.shared) parts.set("side", "shared");
  if (next.view === "map" && next.size) { parts.set("base", hex(next.base)); parts.set("size", hex(next.size)); }
  if (next.view === "exits" && next.call !== null) parts.set("n", next.call);
  location.hash = parts.toString();
}
function read() {
  const parts = new URLSearchParams(location.hash.slice(1));
  const number = (name) => { const n = Number(parts.get(name)); return parts.has(name) && Number.isFinite(n) && n >= 0 ? n : null; };
  state.view = ["end", "map", "page", "exits", "calls"].includes(parts.get("view")) ? parts.get("view") : (data.ending.died ? "end" : "map");
  state.gpa = number("gpa"); state.shared = parts.get("side") === "shared"; state.call = number("n");
  state.base = number("base") ?? first.base; state.size = number("size") || first.size;
  for (const button of document.querySelectorAll("nav button")) button.setAttribute("aria-selected", String(button.dataset.view === state.view));
  for (const section of document.querySelectorAll("main > section")) section.hidden = section.id !== "view-" + state.view;
  ({ end: showEnd, map: showMap, page: showPage, exits: showExits, calls: showCalls })[state.view]();
}
const table = (head, rows) => `<table><thead><tr>${head.map((h) => `<th>${h}</th>`).join("")}</tr></thead><tbody>${rows.join("")}</tbody></table>`;
function callRow(c) {
  const link = `<a class="mono" href="#view=exits&n=${c.n}">${c.n}</a>`;
  const what = c.exit ? `<b>${words(c.exit)}</b> ${words(c.detail || "")}` : words(c.detail || "");
  return `<tr><td>${link}</td><td class="n">${time(c.t)}</td><td class="n">${c.guest ? "guest, vCPU " + words(c.vcpu ?? "?") : "host, LP " + c.lp}</td><td class="n">${words(c.leaf)}</td>`
    + `<td>${c.gpa === undefined ? "" : gpaLink(c.gpa) + ` <span class="faint">${LEVELS[c.level]}</span>`}</td><td class="${wasRefused(c) ? "bad" : ""}">${words(c.status)}</td><td>${what}</td></tr>`;
}
const callTable = (calls) => table(["call", "time", "by", "leaf", "address", "status", ""], calls.map(callRow));

function showEnd() {
  const { ending } = data;
  const about = data.about.map(([k, v]) => `<tr><td class="faint">${words(k)}</td><td>${words(v)}</td></tr>`);
  const last = data.vcpus.map((vcpu) => {
    const exits = data.calls.filter((c) => c.exit && c.vcpu === vcpu.index).slice(-8);
    return exits.length ? `<h2>Last exits of vCPU ${vcpu.index}</h2>` + callTable(exits) : "";
  });
  $("view-end").innerHTML = `<div class="card ${ending.died ? "dead" : ""}"><div class="verdict">${words(ending.text)}</div>`
    + (ending.gpa === null ? "" : `<p>It is about ${gpaLink(ending.gpa)}. ${words(explain(ending.gpa, pathTo(ending.gpa, false).at(-1), callsAbout(ending.gpa)).join(" "))}</p>`)
    + `</div><div class="card">${last.join("") || "No exit is recorded."}</div><div class="card"><h2>The TD</h2><table>${about.join("")}</table></div>`;
}

// --- The map ------------------------------------------------------------------------------------------------------
const COLUMNS = 128, ROWS = 48;
const home = (() => {
  const ends = data.ranges.map(([, to]) => to).concat(leaves.map((e) => e.gpa + bytesOf(e.level)));
  let size = COLUMNS * ROWS * 4096;
  while (size < Math.max(0, ...ends)) size *= 2;
  return { base: 0, size };
})();
// The first view is of the memory that begins at the bottom; what lies far above it, as firmware does, is a zoom away.
const first = (() => {
  const from = Math.min(...data.ranges.map(([from]) => from)), end = data.ranges.reduce((end, [from, to]) => (from <= end ? Math.max(end, to) : end), from);
  let size = COLUMNS * ROWS * 4096;
  while (size < end) size *= 2;
  return { base: 0, size: data.ranges.length ? Math.min(size, home.size) : home.size };
})();
const cellBytes = () => Math.max(4096, state.size / (COLUMNS * ROWS));
let chosen = 0;
function showMap() {
  const box = $("map");
  const width = (box.width = Math.max(640, box.clientWidth * devicePixelRatio)), height = (box.height = width * 0.42);
  const context = box.getContext("2d"), cell = cellBytes(), w = width / COLUMNS, h = height / ROWS;
  const cells = new Array(COLUMNS * ROWS).fill(null);
  for (const [from, to] of data.ranges) mark(from, to, "none");
  const rank = ["none", "mapped1", "mapped2", "mapped4", "shared", "pending", "blocked", "differs"];
  function mark(from, to, name) {
    const first = Math.max(0, Math.floor((from - state.base) / cell)), last = Math.min(cells.length, Math.ceil((to - state.base) / cell));
    for (let i = first; i < last; i++) if (cells[i] === null || rank.indexOf(name) > rank.indexOf(cells[i])) cells[i] = name;
  }
  for (const entry of leaves) mark(entry.gpa, entry.gpa + bytesOf(entry.level), stateOf(entry));
  context.clearRect(0, 0, width, height);
  cells.forEach((name, i) => {
    if (name === null) return;
    context.fillStyle = colour(name);
    context.fillRect((i % COLUMNS) * w, Math.floor(i / COLUMNS) * h, w - 1, h - 1);
  });
  context.strokeStyle = colour("ink"); context.lineWidth = 2 * devicePixelRatio;
  context.strokeRect((chosen % COLUMNS) * w, Math.floor(chosen / COLUMNS) * h, w, h);
  const gpa = state.base + chosen * cell, entry = pathTo(gpa, false).at(-1) || pathTo(gpa, true).at(-1);
  $("map-place").innerHTML = `<span class="mono">${hex(state.base)} – ${hex(state.base + state.size)}</span>, a cell is ${cell >= 2 ** 20 ? cell / 2 ** 20 + "M" : cell / 1024 + "K"}. Chosen: ${gpaLink(gpa)} `
    + (entry ? words(entry.shared ? "shared" : entry.sept ? entry.sept.state : "mirror only") + " " + LEVELS[entry.level] : "nothing mapped");
}
function zoom(factor, around) {
  const size = Math.min(home.size, Math.max(COLUMNS * ROWS * 4096, state.size * factor));
  let base = around - ((around - state.base) / state.size) * size;
  base = Math.max(0, Math.min(home.size - size, Math.floor(base / 4096) * 4096));
  chosen = Math.max(0, Math.min(COLUMNS * ROWS - 1, Math.floor((around - base) / Math.max(4096, size / (COLUMNS * ROWS)))));
  go({ view: "map", base, size });
}
function cellUnder(event) {
  const box = $("map").getBoundingClientRect();
  const x = Math.floor(((event.clientX - box.left) / box.width) * COLUMNS), y = Math.floor(((event.clientY - box.top) / box.height) * ROWS);
  return Math.max(0, Math.min(COLUMNS * ROWS - 1, y * COLUMNS + x));
}
$("map").addEventListener("click", (event) => { chosen = cellUnder(event); showMap(); });
$("map").addEventListener("dblclick", (event) => { chosen = cellUnder(event); zoom(1 / 4, state.base + chosen * cellBytes()); });
$("map").addEventListener("wheel", (event) => { event.preventDefault(); zoom(event.deltaY < 0 ? 1 / 2 : 2, state.base + cellUnder(event) * cellBytes()); }, { passive: false });

// --- One page -----------------------------------------------------------------------------------------------------
function bits(raw, other) {
  if (raw === undefined) return "–";
  if (other === undefined) return `<code>${words(raw)}</code>`;
  return `<code class="bits">${[...raw].map((digit, i) => (digit === other[i] ? digit : `<b>${digit}</b>`)).join("")}</code>`;
}
/// The numbers of the bits in which two entries differ.
function bitNumbers(a, b) {
  if (a === undefined || b === undefined) return "";
  const out = [];
  const difference = BigInt(a) ^ BigInt(b);
  for (let n = 0n; n < 64n; n++) if (difference >> n & 1n) out.push(Number(n));
  return out.length ? `bits ${out.join(", ")} differ: the two have different forms; what has to agree is below` : "equal";
}
function showPage() {
  const gpa = state.gpa ?? 0, path = pathTo(gpa, state.shared), calls = callsAbout(gpa);
  const entry = path.at(-1);
  const crumbs = path.map((e) => `<a class="mono" href="#view=page&gpa=${hex(e.gpa)}${e.shared ? "&side=shared" : ""}" ${e === entry ? 'aria-current="true"' : ""}>${LEVELS[e.level]} ${hex(e.gpa)}</a>`).join("");
  let columns = "";
  if (entry) {
    const { mirror, sept, pamt } = entry, wrong = differences(entry);
    const row = (name, label, m, s, p) => [label, m, s, p].map((text, i) => `<div class="${i && wrong.has(name) && text !== "" ? "differs" : i ? "" : "faint"}">${text}</div>`).join("");
    columns = `<div class="columns"><div></div><div class="head">${entry.shared ? "shared EPT entry" : "mirror entry"}</div><div class="head">S-EPT entry</div><div class="head">PAMT entry</div>`
      + row("raw", "value", bits(mirror?.raw, sept?.raw), bits(sept?.raw, mirror?.raw), "")
      + row("bits", "", "", words(bitNumbers(mirror?.raw, sept?.raw)), "")
      + row("kind", "is", words(mirror?.kind ?? "absent"), words(sept ? `${sept.kind}, ${sept.state}` : entry.shared ? "–" : "absent"), "")
      + row("page", "page", `<code>${words(mirror?.page ?? "–")}</code>`, `<code>${words(sept?.page ?? "–")}</code>`, `<code>${words(pamt?.page ?? "–")}</code>`)
      + row("size", "size", LEVELS[entry.level], sept ? LEVELS[entry.level] : "–", pamt ? LEVELS[pamt.level] : "–")
      + row("type", "type", "", sept ? (sept.kind === "leaf" ? "a private page (REG)" : "a table (EPT)") : "–", words(pamt?.type ?? "–"))
      + row("owner", "owner", "", `TDR <code>${words(data.tdr)}</code>`, `<code>${words(pamt?.owner ?? "–")}</code>`)
      + row("bepoch", "BEPOCH", "", "", words(pamt?.bepoch ?? "–")) + `</div>`;
  }
  const other = pathTo(gpa, !state.shared).at(-1);
  const shownAs = `<p class="faint">Shown is the ${state.shared ? "shared" : "private"} side. ` + (other && isLeaf(other) ? `<a href="#view=page&gpa=${hex(gpa)}${state.shared ? "" : "&side=shared"}">The other side has a page here, too.</a>` : "") + `</p>`;
  $("view-page").innerHTML = `<div class="card"><h2>Guest-physical address <span class="mono">${hex(gpa)}</span></h2><nav class="path" aria-label="from the root">${crumbs || '<span class="faint">no entry leads here</span>'}</nav>`
    + `<p>${explain(gpa, entry && isLeaf(entry) ? entry : undefined, calls).map(words).join(" ")}</p>${columns}${shownAs}</div>`
    + `<div class="card"><h2>What touched it</h2><p class="faint">Every recorded SEAMCALL and guest ACCEPT about a range that covers the address, and every exit because of it.${dropped()}</p>${calls.length ? `<div class="scroll">${callTable(calls)}</div>` : "Nothing is recorded."}</div>`;
}
const dropped = () => (data.dropped ? ` ${data.dropped} older calls were too many to keep.` : "");

// --- Exits --------------------------------------------------------------------------------------------------------
const PALETTE = ["#3b7dd8", "#2f9e6e", "#e0a100", "#c2410c", "#8b3fb5", "#0e8f9e", "#b42375", "#66720f"];
const kinds = [...new Set(data.calls.filter((c) => c.exit).map((c) => c.exit))].sort();
const span = { from: 0, to: 0 };
const exits = data.calls.filter((c) => c.exit);
if (exits.length) { span.from = exits[0].t; span.to = Math.max(span.from + 1, exits.at(-1).t + exits.at(-1).d); }
const whole = { ...span };
function showExits() {
  const box = $("lanes"), ratio = devicePixelRatio, lane = 46 * ratio, left = 70 * ratio;
  const width = (box.width = Math.max(640, box.clientWidth * ratio)), height = (box.height = lane * Math.max(1, data.vcpus.length) + 24 * ratio);
  box.style.height = height / ratio + "px";
  const context = box.getContext("2d"), x = (t) => left + ((t - span.from) / (span.to - span.from)) * (width - left);
  context.clearRect(0, 0, width, height); context.font = `${12 * ratio}px ui-monospace, monospace`; context.textBaseline = "middle";
  data.vcpus.forEach((vcpu, i) => {
    context.fillStyle = colour("faint"); context.fillText("vCPU " + vcpu.index, 6 * ratio, i * lane + lane / 2);
    context.fillStyle = colour("none"); context.fillRect(left, i * lane + 6 * ratio, width - left, lane - 12 * ratio);
  });
  let shown = null;
  for (const c of data.calls) {
    if (c.n === state.call) shown = c;
    if (c.t + c.d < span.from || c.t > span.to) continue;
    const i = data.vcpus.findIndex((v) => v.lp === c.lp);
    if (i < 0) continue;
    const from = x(c.t), to = Math.max(from + ratio, x(c.t + c.d));
    context.fillStyle = c.exit ? PALETTE[kinds.indexOf(c.exit) % PALETTE.length] : colour("mixed");
    context.fillRect(from, i * lane + (c.exit ? 8 : 20) * ratio, to - from, lane - (c.exit ? 16 : 40) * ratio);
    if (c.n === state.call) { context.strokeStyle = colour("ink"); context.lineWidth = 2 * ratio; context.strokeRect(from - ratio, i * lane + 4 * ratio, to - from + 2 * ratio, lane - 8 * ratio); }
  }
  context.fillStyle = colour("faint");
  context.fillText(time(span.from), left, height - 10 * ratio);
  const end = time(span.to); context.fillText(end, width - context.measureText(end).width - 4 * ratio, height - 10 * ratio);
  $("exit-legend").innerHTML = kinds.map((kind, i) => `<span><i style="background:${PALETTE[i % PALETTE.length]}"></i>${words(kind)} <span class="faint">${exits.filter((c) => c.exit === kind).length}</span></span>`).join("");
  $("exit-call").innerHTML = shown ? callTable([shown]) + registers(shown) : `<p class="faint">Choose a call to see its registers.</p>`;
}
function registers(c) {
  const list = (values) => Object.entries(values).map(([name, value]) => `<span class="mono">${words(name)} ${words(value)}</span>`).join(" &nbsp; ") || "–";
  return `<p><span class="faint">in</span> ${list(c.in)}</p><p><span class="faint">out</span> ${list(c.out)}</p>`
    + `<p class="faint">Registers that pass between host and module; nothing of the guest's own.</p>`;
}
$("lanes").addEventListener("click", (event) => {
  const box = $("lanes").getBoundingClientRect(), ratio = devicePixelRatio;
  const t = span.from + (((event.clientX - box.left) * ratio - 70 * ratio) / ($("lanes").width - 70 * ratio)) * (span.to - span.from);
  const vcpu = data.vcpus[Math.floor((event.clientY - box.top) / 46)];
  if (!vcpu) return;
  let best = null;
  for (const c of data.calls) if (c.lp === vcpu.lp && (best === null || Math.abs(c.t - t) < Math.abs(best.t - t))) best = c;
  if (best) go({ view: "exits", call: best.n });
});
function zoomTime(factor) {
  const centre = (state.call !== null && data.calls.find((c) => c.n === state.call)?.t) || (span.from + span.to) / 2;
  const length = Math.min(whole.to - whole.from, Math.max(1, (span.to - span.from) * factor));
  span.from = Math.max(whole.from, centre - length / 2); span.to = Math.min(whole.to, span.from + length);
  showExits();
}
$("lanes").addEventListener("wheel", (event) => { event.preventDefault(); zoomTime(event.deltaY < 0 ? 1 / 2 : 2); }, { passive: false });

// --- Calls --------------------------------------------------------------------------------------------------------
function showCalls() {
  const refused = data.calls.filter(wasRefused).slice(-200), last = data.calls.slice(-400);
  const counts = data.counts.map(([leaf, count]) => `<tr><td class="n">${words(leaf)}</td><td class="n">${count}</td></tr>`);
  $("view-calls").innerHTML = `<div class="card"><h2>Refused</h2>${refused.length ? `<div class="scroll">${callTable(refused)}</div>` : "No recorded call was refused."}</div>`
    + `<div class="card"><h2>How often</h2>${table(["leaf", "calls"], counts)}</div>`
    + `<div class="card"><h2>The last ${last.length}</h2><p class="faint">${dropped()}</p><div class="scroll">${callTable(last)}</div></div>`;
}

// --- Keys ---------------------------------------------------------------------------------------------------------
document.querySelectorAll("nav button").forEach((button) => button.addEventListener("click", () => go({ view: button.dataset.view })));
$("find").addEventListener("submit", (event) => {
  event.preventDefault();
  // Digits with a letter among them are hexadecimal, with or without a prefix.
  const text = $("gpa").value.trim(), n = Number(/^[0-9a-f]*[a-f][0-9a-f]*$/i.test(text) ? "0x" + text : text);
  if (Number.isFinite(n) && n >= 0 && text !== "") go({ view: "page", gpa: n, shared: false });
  else $("gpa").setCustomValidity("a number, such as 0x80000000"), $("gpa").reportValidity();
});
$("gpa").addEventListener("input", () => $("gpa").setCustomValidity(""));
$("theme").addEventListener("click", () => {
  const root = document.documentElement, dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  read();
});
$("zoom-in").addEventListener("click", () => zoom(1 / 2, state.base + chosen * cellBytes()));
$("zoom-out").addEventListener("click", () => zoom(2, state.base + chosen * cellBytes()));
$("time-in").addEventListener("click", () => zoomTime(1 / 2));
$("time-out").addEventListener("click", () => zoomTime(2));
addEventListener("keydown", (event) => {
  if (event.target.tagName === "INPUT" || event.ctrlKey || event.metaKey || event.altKey) return;
  const views = ["end", "map", "page", "exits", "calls"], number = Number(event.key);
  if (number >= 1 && number <= 5) return go({ view: views[number - 1] });
  if (event.key === "g") { event.preventDefault(); return $("gpa").focus(); }
  if (event.key === "t") return $("theme").click();
  const zoomed = event.key === "+" ? 1 / 2 : event.key === "-" ? 2 : 0;
  if (state.view === "exits") {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (zoomed) return zoomTime(zoomed);
    if (step) { const here = data.calls.findIndex((c) => c.n === state.call), next = data.calls[Math.max(0, Math.min(data.calls.length - 1, here + step))]; if (next) go({ view: "exits", call: next.n }); }
  }
  if (state.view !== "map") return;
  if (zoomed) return zoom(zoomed, state.base + chosen * cellBytes());
  const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -COLUMNS, ArrowDown: COLUMNS }[event.key];
  if (step) { event.preventDefault(); chosen = Math.max(0, Math.min(COLUMNS * ROWS - 1, chosen + step)); showMap(); }
  if (event.key === "Enter") go({ view: "page", gpa: state.base + chosen * cellBytes(), shared: false });
});
addEventListener("hashchange", read);
addEventListener("resize", () => (state.view === "map" ? showMap() : state.view === "exits" && showExits()));
read();

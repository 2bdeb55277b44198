function draw(details) {  // a page's chartsOf says what of a case is drawn
  const place = details.querySelector(":scope > .charts");
  if (place && !place.childElementCount) charts(place, chartsOf(details.dataset.case));
}
document.querySelectorAll("details[data-case]").forEach(one => {
  one.addEventListener("toggle", () => { if (one.open) draw(one); });
  if (one.open) requestAnimationFrame(() => setTimeout(() => draw(one)));  // the tables are shown first
});
dark.addEventListener("change", () => document.querySelectorAll("details[data-case][open]").forEach(one => {
  one.querySelector(":scope > .charts").replaceChildren(); draw(one);
}));
function openNamed() {
  const named = document.getElementById(location.hash.slice(1));
  if (named && named.tagName === "DETAILS") { named.open = true; named.scrollIntoView(); }
}
addEventListener("hashchange", openNamed);
openNamed();
const table = document.getElementById("overview");
if (table) {
  const body = table.tBodies[0], find = document.getElementById("find");
  table.querySelectorAll("th button").forEach(button => button.addEventListener("click", () => {
    const head = button.closest("th"), column = head.cellIndex, down = head.getAttribute("aria-sort") === "ascending";
    table.querySelectorAll("th").forEach(one => one.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const keyed = [...body.rows].map(row => {
      const text = row.cells[column].textContent.trim(), value = Number(text.replace(/[, ?*]/g, ""));
      return {row, text, value, missing: text === ""};
    });
    const numeric = keyed.every(one => !Number.isNaN(one.value));
    keyed.sort((a, b) => a.missing - b.missing || (numeric ? a.value - b.value : a.text.localeCompare(b.text)) * (down ? -1 : 1));
    body.append(...keyed.map(one => one.row));
  }));
  find.addEventListener("input", () => {
    const wanted = find.value.toLowerCase();
    let shown = 0;
    for (const row of body.rows) shown += !(row.hidden = !row.cells[0].textContent.toLowerCase().includes(wanted));
    document.getElementById("found").textContent = wanted ? shown + (shown === 1 ? " case" : " cases") : "";
  });
}

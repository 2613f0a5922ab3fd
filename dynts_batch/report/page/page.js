// Replays a trace: which tokens exist at each length, and which have left the cache.
for (const replay of document.querySelectorAll(".replay")) {
  const text = replay.nextElementSibling;
  const pieces = [...text.querySelectorAll("span")].map((span) => ({
    span,
    start: Number(span.dataset.start),
    at: Number(span.dataset.at ?? Infinity),
    half: Number(span.dataset.half ?? Infinity),
  }));
  const slider = replay.querySelector("input");
  const output = replay.querySelector("output");
  // Lengths of the sequence at which something was evicted.
  const moments = replay.dataset.moments.split(" ").map(Number);

  function show() {
    const length = Number(slider.value);
    for (const { span, start, at, half } of pieces) {
      span.classList.toggle("future", start >= length);
      span.classList.toggle("gone", at <= length);
      span.classList.toggle("partly", half <= length && length < at);
      span.classList.toggle("leaving", at === length || half === length);
    }
    const eviction = moments.indexOf(length) + 1;
    const which = eviction ? `, eviction ${eviction} of ${moments.length}` : "";
    output.textContent = `${length} of ${slider.max} tokens${which}`;
  }

  function step(isForward) {
    const now = Number(slider.value);
    const next = isForward ? moments.find((at) => at > now) : moments.findLast((at) => at < now);
    slider.value = next ?? (isForward ? slider.max : slider.min);
    show();
    text.querySelector(".leaving")?.scrollIntoView({ block: "nearest" });
  }

  slider.addEventListener("input", show);
  const [back, forward] = replay.querySelectorAll("button");
  back.addEventListener("click", () => step(false));
  forward.addEventListener("click", () => step(true));
  // Wherever in the trace the focus is.
  replay.closest(".trace").addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "p" || event.key === "n") step(event.key === "n");
  });
}

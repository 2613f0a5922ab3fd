// Replays a trace: at each length of the sequence, which tokens exist and which are gone from the cache.
for (const replay of document.querySelectorAll(".replay")) {
  const text = replay.nextElementSibling;
  const pieces = [...text.querySelectorAll("span")].map((span) => ({
    span,
    start: Number(span.dataset.start),
    at: span.dataset.at === undefined ? Infinity : Number(span.dataset.at),
  }));
  const slider = replay.querySelector("input");
  const output = replay.querySelector("output");
  slider.addEventListener("input", () => {
    const length = Number(slider.value);
    for (const { span, start, at } of pieces) {
      span.classList.toggle("future", start >= length);
      span.classList.toggle("gone", at <= length);
    }
    output.textContent = `${length} of ${slider.max} tokens`;
  });
}

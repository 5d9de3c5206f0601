// Pictures: the newest one of each camera on the wall, and the one beside an event.
"use strict";

{
  const PICTURES_MS = 5_000;

  /** An image that is there once it is loaded, and gone where there is none. */
  function photo(alt, ...classes) {
    const image = make("img", { alt, class: ["photo", ...classes].join(" "), decoding: "async", hidden: true });
    image.addEventListener("load", () => { image.hidden = false; });
    image.addEventListener("error", () => { image.hidden = true; });
    return image;
  }

  const inSight = (node) => {
    const { top, bottom } = node.getBoundingClientRect();
    return bottom > -200 && top < innerHeight + 200;
  };

  function showPhotos() {
    if (document.hidden || state.view !== "wall" || !state.status || !$("login").hidden) return;
    for (const card of $("cameras").children) {
      const camera = state.status.cameras.find((c) => c.name === card.dataset.key);
      let image = card.querySelector(".photo");
      let motion = card.querySelector(".motion");
      if (!camera?.pictures) {
        image?.remove();
        motion?.remove();
        continue;
      }
      if (!image) {
        image = photo(`What ${camera.name} shows`);
        motion = make("p", { class: "dim motion" });
        card.querySelector(".top").after(image, motion);
      }
      put(motion, camera.motion === null ? "" : `Motion ${percent(camera.motion)}`);
      if (inSight(card)) image.src = `/api/cameras/${encodeURIComponent(camera.name)}/picture?${Date.now()}`;
    }
  }

  setInterval(showPhotos, PICTURES_MS);
  document.addEventListener("visibilitychange", showPhotos);
  addEventListener("nursery:view", ({ detail }) => {
    showPhotos();
    if (detail.view === "event") $("event-body").querySelector(".photo")?.remove();
  });
  // It may come some seconds after the event that is looked at.
  addEventListener("nursery:file", ({ detail }) => {
    if (!detail.picture || $("event-body").querySelector(".photo")) return;
    const image = photo("What the camera showed when it began", "wide");
    $("clip").before(image);
    image.src = `/api/events/${encodeURIComponent(detail.event_id)}/picture`;
  });
  const firstPhotos = setInterval(() => {
    if (!state.status) return;
    clearInterval(firstPhotos);
    showPhotos();
  }, 250);
}

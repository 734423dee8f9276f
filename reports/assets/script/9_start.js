// Start what the page has; a part that fails says so in its place and leaves the others alone.
document.addEventListener("DOMContentLoaded", () => {
  Theme.start();
  Tip.start();
  startMenus();
  startCopying();
  const node = document.getElementById("leaderboard");
  if (node) {
    const board = new Leaderboard(node);
    const chooser = document.getElementById("chooser");
    if (chooser) new Chooser(chooser, board);
  }
  Figures.start();
});

/** Runs in a page: bytes of the workers' own scripts, which the page's requests leave out. */
export const workers = () =>
  performance
    .getEntriesByType("resource")
    .filter(({ name }) => /worker-[^/]*\.js$/.test(name))
    .reduce((sum, { transferSize }) => sum + transferSize, 0);

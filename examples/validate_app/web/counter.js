// What the page counts with.
exports.next = (count, step = 1) => count + step;

"""Works a report out of climate normals; the weather tool runs this in a sandbox."""

import json
import sys

MONTHS = (
    "january february march april may june july august september october november december"
).split()


def main(city, month):
    with open("normals.json", encoding="utf-8") as file:
        cities = json.load(file)
    known = {name.lower(): name for name in cities}
    if city.lower() not in known:
        sys.exit(f"{city} is none of {', '.join(cities)}")
    if month.lower() not in MONTHS:
        sys.exit(f"{month} is no month")
    name, at = known[city.lower()], MONTHS.index(month.lower())
    normals = cities[name]
    high, low, wet = (normals[key][at] for key in ("high", "low", "wet"))
    means = [(h + l) / 2 for h, l in zip(normals["high"], normals["low"])]
    warmer = sum(mean > means[at] for mean in means)
    lines = [
        f"# Weather for {name} in {MONTHS[at].title()}",
        "",
        f"- from {low:.0f} to {high:.0f} °C, {(high + low) / 2:.1f} °C on average",
        f"- {wet} days with rain or snow",
        f"- {warmer} months of the year are warmer",
        f"- take {packing(high, low, wet)}",
        "",
    ]
    with open("report.md", "w", encoding="utf-8") as file:
        file.write("\n".join(lines))


def packing(high, low, wet):
    things = ["a warm coat" if low < 3 else "a jacket" if low < 13 else "light clothes"]
    if high > 27:
        things.append("a hat")
    if wet >= 9:
        things.append("an umbrella")
    return ", ".join(things)


main(*sys.argv[1:3])

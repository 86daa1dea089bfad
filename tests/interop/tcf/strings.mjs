// Prints random TC strings of IAB's own encoder, each with the verdict of IAB's own decoder: verdict, tab, string.
// node strings.mjs COUNT [SEED]. It prints counts of the strings' properties on standard error.
import { GVL, PurposeRestriction, Segment, TCModel, TCString } from "@iabtcf/core";

const count = Number(process.argv[2]);
let state = Number(process.argv[3] ?? 1);

// mulberry32
function random() {
  state = (state + 0x6d2b79f5) | 0;
  let t = Math.imul(state ^ (state >>> 15), 1 | state);
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
  return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
}
const below = (n) => Math.floor(random() * n);
const chance = (p) => random() < p;
const pick = (array) => array[below(array.length)];
const some = (array, p) => array.filter(() => chance(p));
const numbers = (n) => Array.from({ length: n }, (_, i) => i + 1);
const named = (ids) => Object.fromEntries(ids.map((id) => [id, { id, name: `n${id}`, description: "", illustrations: [] }]));

const VENDOR = 21;
const PURPOSES = [1, 2, 3, 4, 7, 10];
const POLICIES = { "TCF 2.0": 2, "TCF 2.2": 4, "TCF 2.3": 5 };

/** Returns a vendor list with ids up to `highest`: most of them, half of them or few. */
function vendorList(highest, policy) {
  const ids = some(numbers(highest), pick([0.02, 0.5, 0.98]));
  if (chance(0.95)) ids.push(VENDOR);
  const vendors = Object.fromEntries(ids.map((id) => [id, vendor(id)]));
  return new GVL({
    gvlSpecificationVersion: 3,
    vendorListVersion: 1 + below(400),
    tcfPolicyVersion: policy,
    lastUpdated: "2026-01-01T00:00:00Z",
    purposes: named(numbers(11)),
    specialPurposes: named([1, 2]),
    features: named([1, 2, 3]),
    specialFeatures: named([1, 2]),
    stacks: {},
    dataCategories: {},
    vendors,
  });
}

function vendor(id) {
  const byInterest = some(numbers(10).slice(1), 0.4);
  const purposes = numbers(11).filter((purpose) => !byInterest.includes(purpose));
  return {
    id,
    name: `v${id}`,
    purposes,
    legIntPurposes: byInterest,
    flexiblePurposes: some(numbers(11).slice(1), 0.5),
    specialPurposes: [1],
    features: [],
    specialFeatures: [],
    policyUrl: "",
  };
}

/** Returns runs of consecutive ids. The encoder writes them as ranges, or as a bit field if there are many runs. */
function runs(ids) {
  const runs = Array.from({ length: below(5) }, () => [below(ids.length), below(ids.length)].sort((a, b) => a - b));
  return ids.filter((_, i) => runs.some(([from, to]) => from <= i && i <= to));
}

function model() {
  const policy = pick(Object.values(POLICIES));
  const gvl = vendorList(pick([21, 40, 60, 150, 150, 900]), policy);
  const ids = Object.keys(gvl.vendors).map(Number);
  const model = new TCModel(gvl);
  model.cmpId = 2 + below(400);
  model.cmpVersion = 1 + below(400);
  model.consentScreen = below(60);
  model.publisherCountryCode = pick(["DE", "FR", "AA"]);
  model.isServiceSpecific = chance(0.8);
  model.useNonStandardTexts = chance(0.1);
  model.purposeOneTreatment = chance(0.1);
  model.specialFeatureOptins.set(some([1, 2], 0.5));
  const consented = some(PURPOSES, pick([0.3, 0.9, 1]));
  model.purposeConsents.set([...consented, ...some([5, 6, 8, 9, 11, 24], 0.5)]);
  const missing = PURPOSES.filter((purpose) => !consented.includes(purpose));
  model.purposeLegitimateInterests.set([...(chance(0.6) ? missing : some(missing, 0.5)), ...some([5, 6, 8], 0.3)]);
  for (const vector of [model.vendorConsents, model.vendorLegitimateInterests]) {
    vector.set(chance(0.5) ? runs(ids) : some(ids, pick([0.02, 0.5, 0.97])));
    if (chance(0.8)) vector.set(VENDOR);
  }
  for (let i = chance(0.5) ? below(12) : 0; i > 0; i--) {
    const restriction = new PurposeRestriction(1 + below(11), below(3));
    for (const id of runs(ids)) model.publisherRestrictions.add(id, restriction);
  }
  model.publisherConsents.set(some(numbers(11), 0.5));
  model.numCustomPurposes = below(8);
  model.publisherCustomConsents.set(some(numbers(model.numCustomPurposes), 0.5));
  model.vendorsAllowed.set(some(ids, 0.3));
  return model;
}

function segments(policy) {
  const others = [Segment.VENDORS_DISCLOSED, Segment.VENDORS_ALLOWED, Segment.PUBLISHER_TC];
  const chosen = some(others, 0.4);
  // Since TCF 2.3 the segment of disclosed vendors is mandatory.
  if (policy === POLICIES["TCF 2.3"] && !chosen.includes(others[0])) chosen.push(others[0]);
  return [Segment.CORE, ...chosen.sort(() => random() - 0.5)];
}

const tally = {};
const note = (property, holds = true) => holds && (tally[property] = (tally[property] ?? 0) + 1);

for (let i = 0; i < count; i++) {
  const made = model();
  const text = TCString.encode(made, { segments: segments(made.policyVersion) });
  if (text.length > 4096) {
    note("longer than a cookie");
    continue;
  }
  const read = TCString.decode(text);
  const allowed = (purpose) =>
    (read.vendorConsents.has(VENDOR) && read.purposeConsents.has(purpose)) ||
    (read.vendorLegitimateInterests.has(VENDOR) && read.purposeLegitimateInterests.has(purpose));
  const verdict = PURPOSES.every(allowed) ? "Sufficient" : "Insufficient";
  console.log(`${verdict}\t${text}`);

  // After the fixed fields of the core come the highest id, in 16 bits, and the flag for ranges.
  const bits = [...Buffer.from(text.split(".")[0], "base64url").subarray(26, 30)].map((b) => b.toString(2).padStart(8, "0"));
  const [policy] = Object.entries(POLICIES).find(([, policy]) => policy === read.policyVersion);
  note(verdict);
  note(policy);
  note(bits.join("")[213 + 16 - 26 * 8] === "1" ? "ranges of vendors" : "bit field of vendors");
  note("two or more restrictions", read.publisherRestrictions.numRestrictions > 1);
  note("several segments", text.includes("."));
  note("needs legitimate interest", verdict === "Sufficient" && !PURPOSES.every((p) => read.purposeConsents.has(p)));
}
console.error(tally);
const rare = ["Sufficient", "Insufficient", ...Object.keys(POLICIES), "ranges of vendors", "bit field of vendors",
  "two or more restrictions", "several segments", "needs legitimate interest"].filter((property) => !(tally[property] >= count / 20));
if (rare.length > 0) {
  console.error("too few strings for:", rare.join(", "));
  process.exit(1);
}

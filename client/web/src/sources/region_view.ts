/** Where the regions of frames and sources lie, in the coordinates of one source (codec/sources/region_view.py). */

import { moved, reference } from "../fit/alignment";
import { GRID } from "../fit/views";
import { remapValues } from "../runtime/pictures";
import type { Source } from "../runtime/types";
import { boxPlaces, REGION_SIZES, regionBox } from "./regions";

export class RegionView {
  private readonly places: Float32Array[];

  constructor(readonly home: Source) {
    const { side } = home.picture;
    this.places = REGION_SIZES.map((_, region) => boxPlaces(regionBox(home.keypoints, region, side)));
  }

  /** Return for each region where the places of its box (BOX_SIDE, BOX_SIDE, 2) are in a frame, in pixels. */
  inFrame(keypoints: Float32Array, source: Source): Float32Array[] {
    return this.inSource(source).map((places) => this.shifted(source, keypoints, places));
  }

  /** The same in the picture of a source. */
  inSource(source: Source): Float32Array[] {
    if (source.keypoints === this.home.keypoints) return this.places;
    return this.places.map((places) => this.shifted(this.home, source.keypoints, places));
  }

  /** Return where pixels of a source at `places` (n, 2) are in the home. */
  inHome(source: Source, places: Float32Array): Float32Array {
    if (source.keypoints === this.home.keypoints) return places;
    return this.shifted(source, this.home.keypoints, places);
  }

  /** Return where pixels of a source at `places` (n, 2) are in a frame with keypoints (K, 3). */
  private shifted(source: Source, keypoints: Float32Array, places: Float32Array): Float32Array {
    const perCell = source.picture.side / GRID;
    const inCells = places.map((value) => (value + 0.5) / perCell - 0.5);
    const shifts = remapValues(moved(reference(source), keypoints), GRID, 2, inCells);
    return places.map((value, i) => value + shifts[i] * perCell);
  }
}

import htm from "htm";
import { h } from "preact";

/** Templates of views: text in them is text, never markup. */
export const html = htm.bind(h);

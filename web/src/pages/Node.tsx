export default function Node() { return null; }

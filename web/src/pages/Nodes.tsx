export default function Nodes() { return null; }

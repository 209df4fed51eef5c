export default function Mirrors() { return null; }

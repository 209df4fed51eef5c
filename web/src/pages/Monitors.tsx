export default function Monitors() { return null; }
